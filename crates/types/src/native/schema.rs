//! JSON schemas of types that are text on the wire.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{
    ContainerId, Digest, Kind, Namespace, PoolName, Reference, SnapshotId, SnapshotName, Time,
    TokenId, VolumeId, VolumeName, volume::schedule::Schedule,
};

macro_rules! text {
    ($($name:ident { $($schema:tt)* })*) => {$(
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", $($schema)* })
            }
        }
    )*};
}

text! {
    VolumeName { "pattern": "^[a-zA-Z0-9][a-zA-Z0-9_.-]+$", "maxLength": 255 }
    SnapshotName { "pattern": "^[a-zA-Z0-9][a-zA-Z0-9_.-]*$", "maxLength": 128 }
    PoolName { "pattern": "^[a-zA-Z][a-zA-Z0-9_.-]*$", "maxLength": 32 }
    Namespace { "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "maxLength": 63 }
    TokenId { "pattern": "^[a-z0-9]{12}$" }
    VolumeId { "pattern": "^[0-9a-f]{64}$" }
    SnapshotId { "pattern": "^[0-9a-f]{64}$" }
    ContainerId { "pattern": "^[0-9a-f]{64}$" }
    Digest { "pattern": "^sha256:[0-9a-f]{64}$" }
    Reference { "description": "an image's name, as in `shop/web:1.2`" }
    Time { "format": "date-time" }
    Schedule {
        "description": "`none`, or how many of each period are kept, as in `hourly:24,daily:7`"
    }
    Kind {
        "description": "What sort of failure it is",
        "enum": [
            "invalid_parameter", "not_found", "conflict", "not_modified", "unauthorized",
            "forbidden", "too_many", "not_implemented", "unavailable", "system"
        ]
    }
}
