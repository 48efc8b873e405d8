//! The one table of the native API: every call, its handler, and what its description says.

use std::sync::LazyLock;

use axum::http::{Method, StatusCode};
use engine::Engine;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use types::{Access, native as n};

use super::{
    dispatch::{self, Handler},
    files, identity, pools, push, snapshots, system, volumes,
};
use crate::docker::dispatch::usual_access;

/// The handlers' shared state is the engine; nothing else.
pub(crate) type Call = dispatch::Call<Engine>;

/// One row of the table.
pub struct Route<S: 'static> {
    pub method: Method,
    /// Below `/kr/v1`; a wildcard in braces is one segment.
    pub path: &'static str,
    pub(crate) handler: Handler<S>,
    /// What a caller needs for it.
    pub access: Access,
    /// Unique; generated clients name their functions by it.
    pub id: &'static str,
    pub summary: &'static str,
    pub query: &'static [Param],
    pub request: Content,
    pub status: StatusCode,
    pub answer: Content,
}

/// A parameter of the query.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    pub name: &'static str,
    pub required: bool,
    pub description: &'static str,
}

/// What a body is.
#[derive(Debug, Clone, Copy)]
pub enum Content {
    None,
    Json(fn(&mut SchemaGenerator) -> Schema),
    Tar,
    Octets,
}

/// JSON of a type.
fn json<T: JsonSchema>() -> Content {
    Content::Json(|generator| generator.subschema_for::<T>())
}

/// A row: call, handler, id, summary.
macro_rules! row {
    ($method:ident $path:literal, $handler:path, $id:literal, $summary:literal) => {
        Route {
            method: Method::$method,
            path: $path,
            handler: (|call| Box::pin($handler(call))) as Handler<Engine>,
            access: usual_access(&Method::$method),
            id: $id,
            summary: $summary,
            query: &[],
            request: Content::None,
            status: StatusCode::OK,
            answer: Content::None,
        }
    };
}

impl<S> Route<S> {
    fn needs(mut self, access: Access) -> Self {
        self.access = access;
        self
    }
    fn query(mut self, query: &'static [Param]) -> Self {
        self.query = query;
        self
    }
    fn takes<T: JsonSchema>(mut self) -> Self {
        self.request = json::<T>();
        self
    }
    fn takes_tar(mut self) -> Self {
        self.request = Content::Tar;
        self
    }
    fn gives<T: JsonSchema>(mut self) -> Self {
        self.answer = json::<T>();
        self
    }
    fn gives_tar(mut self) -> Self {
        self.answer = Content::Tar;
        self
    }
    fn takes_octets(mut self) -> Self {
        self.request = Content::Octets;
        self
    }
    fn gives_octets(mut self) -> Self {
        self.answer = Content::Octets;
        self
    }
    fn makes<T: JsonSchema>(mut self) -> Self {
        self.status = StatusCode::CREATED;
        self.gives::<T>()
    }
    fn gives_nothing(mut self) -> Self {
        self.status = StatusCode::NO_CONTENT;
        self
    }
}

const FORCE: Param = Param {
    name: "force",
    required: false,
    description: "With `1`, a volume that does not exist is fine.",
};
const FORCE_TENANT: Param = Param {
    name: "force",
    required: false,
    description: "With `1`, its containers, volumes and snapshots go as well.",
};
const AUDIT: &[Param] = &[
    Param {
        name: "namespace",
        required: false,
        description: "Whose calls.",
    },
    Param {
        name: "token",
        required: false,
        description: "Those made with this token.",
    },
    Param {
        name: "call",
        required: false,
        description: "A part of method and path, as in `DELETE /containers`.",
    },
    Param {
        name: "since",
        required: false,
        description: "Not before: RFC 3339, or seconds since 1970.",
    },
    Param {
        name: "until",
        required: false,
        description: "Not after.",
    },
    Param {
        name: "failed",
        required: false,
        description: "With `1`, only what was refused or failed.",
    },
    Param {
        name: "last",
        required: false,
        description: "Only the last so many.",
    },
];
const NAMESPACE: Param = Param {
    name: "namespace",
    required: false,
    description: "For the operator: another namespace than one's own.",
};
const SESSION: Param = Param {
    name: "session",
    required: true,
    description: "The push, from its begin.",
};
const BASES: Param = Param {
    name: "bases",
    required: false,
    description: "The layers whose chunks the recipe numbers, by their digests, with commas between.",
};
const PATH: Param = Param {
    name: "path",
    required: true,
    description: "A path from the volume's root. It never leads out of the volume.",
};
const FILE: Param = Param {
    name: "file",
    required: true,
    description: "What the file shall be: a FilePut as JSON.",
};
const SNAPSHOT: Param = Param {
    name: "snapshot",
    required: false,
    description: "The snapshot to look into; without, the volume as it is now.",
};
const FROM: Param = Param {
    name: "from",
    required: true,
    description: "The snapshot to compare with.",
};
const TO: Param = Param {
    name: "to",
    required: false,
    description: "Another snapshot; without, the volume as it is now.",
};

static TABLE: LazyLock<Vec<Route<Engine>>> = LazyLock::new(|| {
    let mut rows = system_rows();
    rows.extend(volume_rows());
    rows.extend(file_rows());
    rows.extend(snapshot_rows());
    rows.extend(pool_rows());
    rows.extend(identity_rows());
    rows.extend(push_rows());
    rows
});

/// Every call of the API.
pub fn table() -> &'static [Route<Engine>] {
    &TABLE
}

fn system_rows() -> Vec<Route<Engine>> {
    vec![
        row!(GET "/version", system::version, "version", "Who answers.")
            .needs(Access::Known)
            .gives::<n::Version>(),
        row!(POST "/stop", system::stop, "stop",
            "Stop all containers of all namespaces, each with its own signal and time.")
        .needs(Access::Operate)
        .takes::<n::StopAll>()
        .gives::<n::Stopped>(),
        row!(GET "/openapi.json", system::openapi, "openapi", "This document.")
            .needs(Access::Known)
            .gives::<serde_json::Value>(),
    ]
}

fn volume_rows() -> Vec<Route<Engine>> {
    vec![
        row!(GET "/volumes", volumes::list, "volumes", "All volumes.").gives::<n::VolumeList>(),
        row!(POST "/volumes", volumes::create, "volume_create",
            "Make a volume. One of this name and class that exists is given back as it is.")
        .takes::<n::VolumeCreate>()
        .makes::<n::Volume>(),
        row!(GET "/volumes/{volume}", volumes::inspect, "volume", "One volume.")
            .gives::<n::Volume>(),
        row!(DELETE "/volumes/{volume}", volumes::remove, "volume_remove",
            "Remove a volume with all its snapshots.")
        .query(&[FORCE])
        .gives_nothing(),
        row!(POST "/volumes/{volume}/resize", volumes::resize, "volume_resize",
            "Make a volume larger.")
        .takes::<n::VolumeResize>()
        .gives::<n::Volume>(),
        row!(POST "/volumes/{volume}/clone", volumes::clone, "volume_clone",
            "Make an independent copy of a volume or of a snapshot.")
        .takes::<n::VolumeClone>()
        .makes::<n::Volume>(),
        row!(POST "/volumes/{volume}/rollback", volumes::rollback, "volume_rollback",
            "Make a volume's content that of a snapshot.")
        .takes::<n::RollbackRequest>()
        .gives::<n::Rollback>(),
        row!(GET "/volumes/{volume}/diff", volumes::diff, "volume_diff",
            "What changed from a snapshot to another, or to now.")
        .query(&[FROM, TO])
        .gives::<n::ChangeList>(),
    ]
}

fn file_rows() -> Vec<Route<Engine>> {
    vec![
        row!(GET "/volumes/{volume}/files", files::list, "volume_files",
            "The entries of a directory of a volume or of a snapshot.")
        .query(&[PATH, SNAPSHOT])
        .gives::<n::FileList>(),
        row!(DELETE "/volumes/{volume}/files", files::remove, "volume_file_remove",
            "Remove a file or a directory of a volume with all that is in it.")
        .query(&[PATH])
        .gives_nothing(),
        row!(GET "/volumes/{volume}/stat", files::stat, "volume_stat",
            "What a path of a volume or of a snapshot is.")
        .query(&[PATH, SNAPSHOT])
        .gives::<n::PathStat>(),
        row!(GET "/volumes/{volume}/archive", files::get, "volume_archive_get",
            "A path of a volume or of a snapshot as a tar. The header kr-path-stat is the base64 of a PathStat.")
        .query(&[PATH, SNAPSHOT])
        .gives_tar(),
        row!(GET "/volumes/{volume}/chunks", files::chunks, "volume_file_chunks",
            "The first six bytes of the BLAKE3 hash of each chunk of a file, in order.")
        .query(&[PATH])
        .gives_octets(),
        row!(PUT "/volumes/{volume}/file", files::put_file, "volume_file_put",
            "Change a file that is there. The body is a recipe (zstd) that numbers its chunks.")
        .query(&[FILE])
        .takes_octets()
        .gives_nothing(),
        row!(PUT "/volumes/{volume}/archive", files::put, "volume_archive_put",
            "Unpack a tar into a directory of a volume.")
        .query(&[PATH])
        .takes_tar()
        .gives_nothing(),
    ]
}

fn snapshot_rows() -> Vec<Route<Engine>> {
    vec![
        row!(POST "/snapshots", snapshots::create, "snapshot_create",
            "Take a snapshot of each of some volumes, all at one moment.")
        .takes::<n::SnapshotCreate>()
        .makes::<n::SnapshotList>(),
        row!(GET "/volumes/{volume}/snapshots", snapshots::list, "snapshots",
            "A volume's snapshots, the oldest first.")
        .gives::<n::SnapshotList>(),
        row!(DELETE "/volumes/{volume}/snapshots/{snapshot}", snapshots::remove, "snapshot_remove",
            "Remove a snapshot.")
        .gives_nothing(),
        row!(POST "/volumes/{volume}/snapshots/{snapshot}/rename", snapshots::rename,
            "snapshot_rename", "Give a snapshot another name.")
        .takes::<n::SnapshotRename>()
        .gives::<n::Snapshot>(),
    ]
}

fn pool_rows() -> Vec<Route<Engine>> {
    vec![
        row!(GET "/pools", pools::list, "pools", "All storage pools.")
            .needs(Access::Operate)
            .gives::<n::PoolList>(),
        row!(POST "/pools", pools::create, "pool_create", "Make a pool.")
            .needs(Access::Operate)
            .takes::<n::PoolCreate>()
            .makes::<n::Pool>(),
        row!(GET "/pools/{pool}", pools::inspect, "pool", "One pool.")
            .needs(Access::Operate)
            .gives::<n::Pool>(),
        row!(POST "/pools/{pool}/grow", pools::grow, "pool_grow", "Make a pool larger.")
            .needs(Access::Operate)
            .takes::<n::PoolGrow>()
            .gives::<n::Pool>(),
        row!(DELETE "/pools/{pool}", pools::remove, "pool_remove",
            "Remove a pool that holds no volumes.")
        .needs(Access::Operate)
        .gives_nothing(),
    ]
}

fn identity_rows() -> Vec<Route<Engine>> {
    vec![
        row!(GET "/whoami", identity::whoami, "whoami", "Who the caller is, to kraud.")
            .needs(Access::Known)
            .gives::<n::Whoami>(),
        row!(GET "/tokens", identity::tokens, "tokens",
            "The tokens of the namespace, without their secrets.")
        .needs(Access::Write)
        .query(&[NAMESPACE])
        .gives::<n::TokenList>(),
        row!(POST "/tokens", identity::token_create, "token_create",
            "Make a token. Its secret is in the answer, and nowhere else.")
        .takes::<n::TokenCreate>()
        .makes::<n::TokenCreated>(),
        row!(DELETE "/tokens/{token}", identity::token_revoke, "token_revoke",
            "Take a token back, with the certificates asked for with it. Connections that it opened end.")
        .query(&[NAMESPACE])
        .gives_nothing(),
        row!(POST "/certificates", identity::certificate_create, "certificate_create",
            "Sign a client certificate, which has the rights of the caller's token.")
        .needs(Access::Known)
        .takes::<n::CertificateCreate>()
        .makes::<n::Certificate>(),
        row!(GET "/authority", identity::authority, "authority", "What to trust this server by.")
            .needs(Access::Known)
            .gives::<n::Authority>(),
        row!(POST "/authority/rotate", identity::authority_rotate, "authority_rotate",
            "Make another authority, which signs from now on. What the ones before have signed stays good.")
        .needs(Access::Operate)
        .takes::<n::AuthorityRotate>()
        .gives::<n::Authority>(),
        row!(GET "/audit", identity::audit, "audit",
            "What was done and what was refused, the oldest first.")
        .needs(Access::Operate)
        .query(AUDIT)
        .gives::<n::AuditList>(),
        row!(GET "/tenants", identity::tenants, "tenants", "All tenants.")
            .needs(Access::Operate)
            .gives::<n::TenantList>(),
        row!(POST "/tenants", identity::tenant_create, "tenant_create",
            "Make a tenant: a namespace, and a token for its owner.")
        .needs(Access::Operate)
        .takes::<n::TenantCreate>()
        .makes::<n::TenantCreated>(),
        row!(GET "/tenants/{tenant}/quota", identity::quota, "quota", "What a tenant may have.")
            .needs(Access::Operate)
            .gives::<n::Quota>(),
        row!(PUT "/tenants/{tenant}/quota", identity::quota_set, "quota_set",
            "Say what a tenant may have. What it has already stays.")
        .needs(Access::Operate)
        .takes::<n::Quota>()
        .gives::<n::Quota>(),
        row!(GET "/usage", identity::usage, "usage",
            "What the namespace has, and what it may have.")
        .query(&[NAMESPACE])
        .gives::<n::QuotaUse>(),
        row!(DELETE "/tenants/{tenant}", identity::tenant_remove, "tenant_remove",
            "Remove a tenant. One with containers or volumes only by force.")
        .needs(Access::Operate)
        .query(&[FORCE_TENANT])
        .gives_nothing(),
    ]
}

fn push_rows() -> Vec<Route<Engine>> {
    let rows = vec![
        row!(POST "/push", push::begin, "push_begin", "Begin to push images: what is missing of them.")
            .takes::<n::PushBegin>()
            .gives::<n::PushPlan>(),
        row!(POST "/push/prefixes", push::prefixes, "push_prefixes",
            "The first six bytes of the BLAKE3 hash of each chunk of layers of one's own, in order.")
        .takes::<n::PushBases>()
        .gives_octets(),
        row!(POST "/push/missing", push::missing, "push_missing",
            "Which chunks have to be sent. The body is their hashes, 32 bytes each; the answer has a byte for each, 1 for missing.")
        .takes_octets()
        .gives_octets(),
        row!(POST "/push/chunks", push::chunks, "push_chunks",
            "Send chunks: zstd of, for each, its length (four bytes, little-endian) and its bytes.")
        .query(&[SESSION])
        .takes_octets()
        .gives::<n::PushReceived>(),
        row!(POST "/push/layers/{layer}", push::layer, "push_layer",
            "Put a layer together from a recipe (zstd), while its chunks still come.")
        .query(&[SESSION, BASES])
        .takes_octets()
        .gives::<n::PushedLayer>(),
        row!(POST "/push/images", push::commit, "push_commit",
            "Record an image whose layers are there, and tag it.")
        .takes::<n::PushCommit>()
        .gives::<n::PushedImage>(),
    ];
    rows.into_iter()
        .map(|row| row.needs(Access::Push))
        .collect()
}
