"""What an answer must look like: the published schema (crates/api/tests/schema/definitions.json, made by
scripts/spec-to-schema.py) read strictly, and what docker's answers have beyond it.

The schema alone is satisfied by an empty object: hardly anything in it is required. So the members that docker always
sends are listed here, and a member that the schema does not know is a fault.
"""

import json
import pathlib

FILE = pathlib.Path(__file__).resolve().parents[2] / "crates/api/tests/schema/definitions.json"

# Members of each definition that docker's Go types always write (they have no `omitempty`).
ALWAYS = {
    "ContainerInspectResponse": """Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name
        RestartCount Driver Platform MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts
        Config NetworkSettings""",
    "ContainerState": "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt",
    "Health": "Status FailingStreak Log",
    "HealthcheckResult": "Start End ExitCode Output",
    "HostConfig": """Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy AutoRemove VolumeDriver
        VolumesFrom ConsoleSize CapAdd CapDrop CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd IpcMode Cgroup
        Links OomScoreAdj PidMode Privileged PublishAllPorts ReadonlyRootfs SecurityOpt UTSMode UsernsMode ShmSize
        Runtime Isolation CpuShares Memory NanoCpus CgroupParent BlkioWeight BlkioWeightDevice BlkioDeviceReadBps
        BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps CpuPeriod CpuQuota CpuRealtimePeriod
        CpuRealtimeRuntime CpusetCpus CpusetMems Devices DeviceCgroupRules DeviceRequests MemoryReservation MemorySwap
        MemorySwappiness OomKillDisable PidsLimit Ulimits CpuCount CpuPercent IOMaximumIOps IOMaximumBandwidth
        MaskedPaths ReadonlyPaths""",
    "RestartPolicy": "Name MaximumRetryCount",
    "ContainerConfig": """Hostname Domainname User AttachStdin AttachStdout AttachStderr Tty OpenStdin StdinOnce Env Cmd
        Image Volumes WorkingDir Entrypoint OnBuild Labels""",
    "NetworkSettings": """Bridge SandboxID SandboxKey Ports HairpinMode LinkLocalIPv6Address LinkLocalIPv6PrefixLen
        SecondaryIPAddresses SecondaryIPv6Addresses EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen IPAddress
        IPPrefixLen IPv6Gateway MacAddress Networks""",
    "EndpointSettings": """IPAMConfig Links Aliases MacAddress DriverOpts GwPriority NetworkID EndpointID Gateway
        IPAddress IPPrefixLen IPv6Gateway GlobalIPv6Address GlobalIPv6PrefixLen DNSNames""",
    "PortBinding": "HostIp HostPort",
    "MountPoint": "Type Source Destination Mode RW Propagation",
    "ContainerSummary": """Id Names Image ImageID Command Created Ports Labels State Status HostConfig NetworkSettings
        Mounts""",
    "ContainerStatsResponse": """name id read preread pids_stats blkio_stats num_procs storage_stats cpu_stats
        precpu_stats memory_stats""",
    "ContainerCPUStats": "cpu_usage throttling_data",
    "ContainerThrottlingData": "periods throttled_periods throttled_time",
    "ContainerNetworkStats": "rx_bytes rx_packets rx_errors rx_dropped tx_bytes tx_packets tx_errors tx_dropped",
    "ContainerTopResponse": "Titles Processes",
    "ExecInspectResponse": """ID Running ExitCode ProcessConfig OpenStdin OpenStderr OpenStdout CanRemove ContainerID
        DetachKeys Pid""",
    "ProcessConfig": "privileged tty entrypoint arguments",
    "ImageSummary": "Id ParentId RepoTags RepoDigests Created Size SharedSize Labels Containers",
    "ImageInspect": """Id RepoTags RepoDigests Parent Comment DockerVersion Author Config Architecture Os Size
        GraphDriver RootFS Metadata""",
    "HistoryResponseItem": "Id Created CreatedBy Tags Size Comment",
    "Volume": "CreatedAt Driver Labels Mountpoint Name Options Scope",
    "VolumeListResponse": "Volumes Warnings",
    "Network": """Name Id Created Scope Driver EnableIPv4 EnableIPv6 IPAM Internal Attachable Ingress ConfigFrom
        ConfigOnly Containers Options Labels""",
    "NetworkContainer": "Name EndpointID MacAddress IPv4Address IPv6Address",
    "IPAM": "Driver Options Config",
    "NetworkCreateResponse": "Id Warning",
    "SystemVersion": "Platform Components Version ApiVersion MinAPIVersion GitCommit GoVersion Os Arch KernelVersion",
    "SystemInfo": """ID Containers ContainersRunning ContainersPaused ContainersStopped Images Driver DriverStatus
        Plugins MemoryLimit SwapLimit CpuCfsPeriod CpuCfsQuota CPUShares CPUSet PidsLimit IPv4Forwarding Debug NFd
        OomKillDisable NGoroutines SystemTime LoggingDriver CgroupDriver CgroupVersion NEventsListener KernelVersion
        OperatingSystem OSVersion OSType Architecture IndexServerAddress RegistryConfig NCPU MemTotal GenericResources
        DockerRootDir HttpProxy HttpsProxy NoProxy Name Labels ExperimentalBuild ServerVersion Runtimes DefaultRuntime
        Swarm LiveRestoreEnabled Isolation InitBinary ContainerdCommit RuncCommit InitCommit SecurityOptions CDISpecDirs
        Warnings""",
    "EventMessage": "Type Action Actor scope time timeNano",
    "EventActor": "ID Attributes",
    "GET /system/df": "LayersSize Images Containers Volumes BuildCache",
    "POST /containers/prune": "ContainersDeleted SpaceReclaimed",
    "POST /images/prune": "ImagesDeleted SpaceReclaimed",
    "POST /volumes/prune": "VolumesDeleted SpaceReclaimed",
    "POST /networks/prune": "NetworksDeleted",
    "ContainerCreateResponse": "Id Warnings",
    "ContainerUpdateResponse": "Warnings",
    "DistributionInspect": "Descriptor Platforms",
    "ErrorResponse": "message",
}
# Members that docker sends and its specification forgets: (definition, or call, and member).
FORGOTTEN = {
    "HostConfig": "Cgroup Isolation",
    "ContainerStatsResponse": "num_procs storage_stats name id",
    # The old form of an event stands beside the new one.
    "EventMessage": "status id from",
    "PushImageInfo": "id aux",
}
# Members that docker sends as null although the specification does not say so. Go writes a list or map that was never
# made as null, which no client minds; but it is the same for every answer, so each is named.
NULLS = {
    "ContainerInspectResponse": "ExecIDs",
    "HostConfig": """Binds VolumesFrom CapAdd CapDrop Dns DnsOptions DnsSearch ExtraHosts GroupAdd Links SecurityOpt
        BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps Devices
        DeviceCgroupRules DeviceRequests Ulimits MemorySwappiness OomKillDisable MaskedPaths ReadonlyPaths PortBindings""",
    "ContainerConfig": "Env Cmd Volumes Entrypoint OnBuild",
    "ImageConfig": "Env Cmd Volumes Entrypoint OnBuild Labels",
    "NetworkSettings": "SecondaryIPAddresses SecondaryIPv6Addresses",
    "EndpointSettings": "IPAMConfig Links Aliases DriverOpts DNSNames",
    "ContainerBlkioStats": "io_service_bytes_recursive io_serviced_recursive io_queue_recursive io_service_time_recursive io_wait_time_recursive io_merged_recursive io_time_recursive sectors_recursive",
    "ImageSummary": "Labels",
    "ImageInspect": "RepoTags RepoDigests",
    "HistoryResponseItem": "Tags",
    "Volume": "Options Labels",
    "VolumeListResponse": "Warnings",
    "IPAM": "Options Config",
    "SystemInfo": "DriverStatus GenericResources CDISpecDirs Warnings Labels",
    "PluginsInfo": "Authorization",
    "SwarmInfo": "RemoteManagers",
    "RegistryServiceConfig": "AllowNondistributableArtifactsCIDRs AllowNondistributableArtifactsHostnames Mirrors",
    "GET /system/df": "Images Containers Volumes BuildCache",
    "POST /containers/prune": "ContainersDeleted",
    "POST /images/prune": "ImagesDeleted",
    "POST /volumes/prune": "VolumesDeleted",
    "POST /networks/prune": "NetworksDeleted",
    "POST /build/prune": "CachesDeleted",
    "ContainerUpdateResponse": "Warnings",
    # The whole answer.
    "GET /containers/{id}/changes": "/",
    "GET /exec/{id}/json": "ExitCode",
}
# Objects whose members may be anything: drivers decide.
FREE = {"Volume.Status"}
# Statuses that docker answers with and its specification forgets; the body is an error's.
STATUSES = {
    "GET /containers/{id}/logs": {400},
    "POST /containers/{id}/exec": {400},
    "POST /networks/create": {409},
    "GET /images/{name}/get": {404},
}
# Enumerations of the specification whose empty value docker sends, too.
EMPTY_IS_FINE = {"PortSummary", "PortBinding", "HostConfig", "ContainerSummary", "LocalNodeState"}


def _table(texts):
    return {name: set(text.split()) for name, text in texts.items()}


ALWAYS, FORGOTTEN, NULLS = _table(ALWAYS), _table(FORGOTTEN), _table(NULLS)


class Schema:
    def __init__(self):
        document = json.loads(FILE.read_text(encoding="utf-8"))
        self.definitions, self.statuses = document["definitions"], document["statuses"]

    def faults(self, call, status, body):
        """Everything that is wrong with a JSON answer (`body` is None where there is none)."""
        known = self.statuses[call]
        if status in STATUSES.get(call, ()):
            return self.check("ErrorResponse", body)
        if str(status) not in known:
            return [f"status {status} is not among {sorted(known)}"]
        schema = known[str(status)]
        if schema is None:
            return []
        found = []
        self._walk("", schema, body, call, found)
        return found

    def check(self, definition, value):
        """The same for one value and one definition."""
        found = []
        self._walk("", {"$ref": f"#/definitions/{definition}"}, value, definition, found)
        return found

    def _walk(self, at, schema, value, name, found):
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[-1]
            return self._walk(at, {**self.definitions[name], "x-nullable": self._nullable(schema)}, value, name, found)
        properties, required, names = self._members(schema, name)
        kind = schema.get("type") or ("object" if properties else "any")
        if value is None and (self._nullable(schema) or (not at and "/" in NULLS.get(name, ()))):
            return None
        if not _fits(kind, value):
            found.append(f"{at or '/'} ({name}): want {kind}, found {json.dumps(value)[:80]}")
            return None
        wanted = schema.get("enum")
        if wanted and value not in wanted and not (value == "" and names & EMPTY_IS_FINE):
            found.append(f"{at} ({name}): {value!r} is none of {wanted}")
        if isinstance(value, list):
            for index, item in enumerate(value):
                self._walk(f"{at}[{index}]", schema.get("items", {}), item, name + "[]", found)
        elif isinstance(value, dict):
            self._object(at, schema, value, (properties, required, names), found)
        return None

    def _object(self, at, schema, value, members, found):
        properties, required, names = members
        of = lambda table: set().union(*(table.get(one, set()) for one in names))
        for member in sorted((required | of(ALWAYS)) - value.keys()):
            found.append(f"{at}.{member}: missing")
        for member, inner in value.items():
            path = f"{at}.{member}"
            if member in properties:
                owner, rule = properties[member]
                if inner is None and member in of(NULLS):
                    continue
                self._walk(path, rule, inner, f"{owner}.{member}", found)
            elif names & FREE:
                continue
            elif isinstance(schema.get("additionalProperties"), dict):
                self._walk(path, schema["additionalProperties"], inner, f"{next(iter(names))}.*", found)
            elif properties and member not in of(FORGOTTEN):
                found.append(f"{path}: not in the specification")

    def _members(self, schema, name):
        """Properties (with the definition that has them), required names, and the definitions' names."""
        properties = {member: (name, rule) for member, rule in schema.get("properties", {}).items()}
        required, names = set(schema.get("required", [])), {name}
        for part in schema.get("allOf", []):
            inner = name
            if "$ref" in part:
                inner = part["$ref"].rsplit("/", 1)[-1]
                part = self.definitions[inner]
            more, needed, called = self._members(part, inner)
            properties.update(more)
            required |= needed
            names |= called
        return properties, required, names

    def _nullable(self, schema):
        if "$ref" in schema and not schema.get("x-nullable"):
            return bool(self.definitions[schema["$ref"].rsplit("/", 1)[-1]].get("x-nullable"))
        return bool(schema.get("x-nullable"))


def _fits(kind, value):
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return {
        "string": isinstance(value, str),
        "integer": number and value == int(value),
        "number": number,
        "boolean": isinstance(value, bool),
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
    }.get(kind, True)
