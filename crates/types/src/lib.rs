//! The nouns of kraud: ids, names, references, specifications, states, events, errors.
//!
//! Every other crate speaks in these types. This crate does no I/O and knows no async
//! runtime, so that a plan can be computed and tested anywhere.

pub mod address;
pub mod container;
pub mod error;
pub mod event;
pub mod filters;
pub mod id;
pub mod identity;
pub mod image;
pub mod name;
pub mod native;
pub mod port;
pub mod record;
pub mod reference;
pub mod size;
pub mod state;
pub mod stats;
pub mod time;
pub mod volume;

pub use container::{Config, HostConfig};
pub use error::{Error, Kind, Result};
pub use event::{Event, EventActor};
pub use filters::Filters;
pub use id::{ContainerId, Digest, ExecId, NetworkId, NodeId, SnapshotId, VolumeId};
pub use identity::{Access, IdRange, Role, TokenId};
pub use name::{ContainerName, Namespace, NetworkName, PoolName, SnapshotName, VolumeName};
pub use reference::Reference;
pub use time::Time;
