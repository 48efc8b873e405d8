//! Tests on real namespaces. Each runs in a network and a mount namespace of its own, which
//! stands for the machine and vanishes with the test; a second namespace is the outside.

mod faults;
mod figures;
mod macvlan;
mod ports;
mod reach;

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, mount_change};
use tokio::runtime::Runtime;
use types::{ContainerId, NetworkId, port::Protocol};

use crate::{
    Bridge, Endpoint, Mac, Networks, Publish, Settings, Subnet, Target,
    link::{Link, Links, Veth},
    netns::{Sandboxes, enter, write_sysctl},
};

/// The machine's address on the line to the outside, and the outside's.
const MACHINE: &str = "192.0.2.1";
const OUTSIDE: &str = "192.0.2.2";
const OUTSIDE_V6: &str = "2001:db8::2";
/// Longer than the second after which a lost question for a neighbour is repeated.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A machine with an outside, and one kraud on it.
struct World {
    folder: tempfile::TempDir,
    runtime: Runtime,
    networks: Networks,
    outside: PathBuf,
}

/// A container: a sandbox with one endpoint.
#[derive(Clone)]
struct Container {
    id: ContainerId,
    endpoint: Endpoint,
    path: PathBuf,
}

/// Runs `test` on a machine of its own.
fn on_machine(test: impl FnOnce(&World) + Send) {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )
        .unwrap();
        let links = Links::open().unwrap();
        links.set_up(1).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let outside = make_outside(&links, folder.path());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let networks = runtime
            .block_on(Networks::open(settings(folder.path(), "0000a001")))
            .unwrap();
        let world = World {
            folder,
            runtime,
            networks,
            outside,
        };
        test(&world);
        world.runtime.block_on(world.networks.tear_down()).unwrap();
        Sandboxes::open(&world.folder.path().join("outside"))
            .unwrap()
            .remove("outside")
            .unwrap();
    };
    if let Err(panic) = thread::scope(|scope| scope.spawn(run).join()) {
        std::panic::resume_unwind(panic);
    }
}

fn settings(folder: &Path, instance: &str) -> Settings {
    Settings {
        instance: instance.parse().unwrap(),
        run_dir: folder.join(instance),
    }
}

/// A namespace behind a switch that the machine is connected to, too.
fn make_outside(links: &Links, folder: &Path) -> PathBuf {
    let sandboxes = Sandboxes::open(&folder.join("outside")).unwrap();
    let path = sandboxes.create("outside", None).unwrap();
    links
        .add_bridge("wan0", 0, Mac([2, 0, 0, 0, 0, 1]), None)
        .unwrap();
    let index = links.index("wan0").unwrap();
    write_sysctl("net.ipv6.conf.wan0.accept_dad", "0").unwrap();
    links
        .add_addresses(index, &[net("192.0.2.1/24"), net("2001:db8::1/64")])
        .unwrap();
    let handle = std::fs::File::open(&path).unwrap();
    let veth = Veth {
        host_name: "wan1",
        group: 0,
        bridge: index,
        mtu: 1500,
        sandbox: std::os::fd::AsFd::as_fd(&handle),
        sandbox_name: "wan",
        mac: Mac([2, 0, 0, 0, 0, 2]),
    };
    links.add_veth(&veth).unwrap();
    inside(&path, || {
        write_sysctl("net.ipv6.conf.wan.accept_dad", "0")?;
        write_sysctl("net.ipv6.conf.wan.disable_ipv6", "0")?;
        let links = Links::open()?;
        links.equip(
            links.index("wan")?,
            &[net("192.0.2.2/24"), net("2001:db8::2/64")],
            &[],
        )
    })
    .unwrap();
    // As in attach: the carrier counts at once.
    assert!(
        ["wan1", "wan0"]
            .iter()
            .all(|name| links.find(name).unwrap().is_some())
    );
    path
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Runs `work` within a namespace.
fn inside<T: Send>(path: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let run = || {
        enter(std::fs::File::open(path)?).map_err(io::Error::other)?;
        work()
    };
    thread::scope(|scope| scope.spawn(run).join()).unwrap()
}

fn bridge(name: &str, nets: &[&str]) -> Bridge {
    let subnet = |text: &&str| {
        crate::ipam::complete(&Subnet {
            net: net(text),
            gateway: None,
            range: None,
        })
        .unwrap()
    };
    Bridge::new(
        NetworkId::random(),
        name.parse().unwrap(),
        nets.iter().map(subnet).collect(),
    )
}

/// The endpoint of host number `host` in every subnet of `bridge`.
fn endpoint(bridge: &Bridge, ifname: &str, host: u128) -> Endpoint {
    let address = |subnet: &Subnet| {
        let ip: IpAddr = match subnet.net {
            IpNet::V4(v4) => Ipv4Addr::from_bits(v4.network().to_bits() + host as u32).into(),
            IpNet::V6(v6) => Ipv6Addr::from_bits(v6.network().to_bits() + host).into(),
        };
        IpNet::new(ip, subnet.net.prefix_len()).unwrap()
    };
    let addresses: Vec<_> = bridge.subnets.iter().map(address).collect();
    let gateways = bridge
        .subnets
        .iter()
        .filter_map(|subnet| subnet.gateway)
        .filter(|_| !bridge.internal)
        .collect();
    let mac = match addresses[0].addr() {
        IpAddr::V4(v4) => Mac::of_v4(v4),
        IpAddr::V6(v6) => Mac::of_v6(v6),
    };
    let (bridge, ifname) = (bridge.name.clone(), ifname.parse().unwrap());
    Endpoint {
        bridge,
        ifname,
        addresses,
        mac,
        gateways,
        sysctls: Vec::new(),
    }
}

impl World {
    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    fn bridge(&self, name: &str, nets: &[&str]) -> Bridge {
        let bridge = bridge(name, nets);
        self.wait(self.networks.ensure_bridge(&bridge)).unwrap();
        bridge
    }

    fn container(&self, bridge: &Bridge, host: u128) -> Container {
        let id = ContainerId::random();
        let endpoint = endpoint(bridge, "eth0", host);
        let path = self.wait(self.networks.create_sandbox(&id)).unwrap();
        self.wait(self.networks.attach(&id, &endpoint)).unwrap();
        Container { id, endpoint, path }
    }

    fn links(&self) -> Vec<Link> {
        Links::open().unwrap().list().unwrap()
    }

    /// How many mounts there are in our folder.
    fn mounts(&self) -> usize {
        let all = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        all.lines()
            .filter(|line| line.contains(self.folder.path().to_str().unwrap()))
            .count()
    }

    /// Elements and rules of all tables.
    fn ruleset(&self) -> String {
        let output = std::process::Command::new("nft")
            .args(["list", "ruleset"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Container {
    fn target(&self, name: &str) -> Target {
        let mut target = Target {
            id: self.id.clone(),
            name: name.into(),
            endpoint_id: "e".repeat(64),
            v4: None,
            v6: None,
        };
        for address in &self.endpoint.addresses {
            match address.addr() {
                IpAddr::V4(v4) => target.v4 = Some(v4),
                IpAddr::V6(v6) => target.v6 = Some(v6),
            }
        }
        target
    }
}

fn publish(
    protocol: Protocol,
    container_port: u16,
    host_ip: Option<&str>,
    host_ports: (u16, u16),
) -> Publish {
    Publish {
        protocol,
        container_port,
        host_ip: host_ip.map(ip),
        host_ports,
    }
}

/// Serves TCP and UDP within a namespace until the test ends: answers each request with the
/// client's address, a space and the request.
fn serve(path: &Path, port: u16) {
    let (tcp, udp) = inside(path, || {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        Ok((TcpListener::bind(any)?, UdpSocket::bind(any)?))
    })
    .unwrap();
    thread::spawn(move || {
        for stream in tcp.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(stream));
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let said = [
                format!("{} ", from.ip().to_canonical()).as_bytes(),
                &buffer[..length],
            ]
            .concat();
            let _ = udp.send_to(&said, from);
        }
    });
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut said = format!("{} ", stream.peer_addr()?.ip().to_canonical()).into_bytes();
    stream.read_to_end(&mut said)?;
    stream.write_all(&said)
}

/// Asks a server over TCP from within a namespace; `None` is this machine.
fn ask(from: Option<&Path>, to: &str) -> io::Result<String> {
    let talk = || {
        let mut stream = TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"hello")?;
        stream.shutdown(Shutdown::Write)?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    };
    from.map_or_else(talk, |path| inside(path, talk))
}

/// Asks a server over UDP.
fn ask_udp(from: Option<&Path>, to: &str) -> io::Result<String> {
    let talk = || {
        let to: SocketAddr = to.parse().unwrap();
        let any: IpAddr = if to.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(to)?;
        socket.send(b"hello")?;
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    from.map_or_else(talk, |path| inside(path, talk))
}
