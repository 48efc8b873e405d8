//! The stored forms, held fast by files of every version (`golden/`).

use types::{
    Time,
    record::{check_golden, decode},
};

use crate::record::{
    ContainerRecord, InstallationRecord, NetworkRecord, ObservedRecord, PoolRecord, SnapshotRecord,
    VolumePhase, VolumeRecord,
};

#[test]
fn stored_forms_change_only_with_their_version() {
    check_golden::<ContainerRecord>(&[include_bytes!("../golden/container.v1.json")]).unwrap();
    check_golden::<ObservedRecord>(&[include_bytes!("../golden/state.v1.json")]).unwrap();
    check_golden::<NetworkRecord>(&[include_bytes!("../golden/network.v1.json")]).unwrap();
    check_golden::<InstallationRecord>(&[include_bytes!("../golden/installation.v1.json")])
        .unwrap();
    check_golden::<SnapshotRecord>(&[include_bytes!("../golden/snapshot.v1.json")]).unwrap();
    check_golden::<PoolRecord>(&[include_bytes!("../golden/pool.v1.json")]).unwrap();
    check_golden::<VolumeRecord>(&[
        include_bytes!("../golden/volume.v1.json"),
        include_bytes!("../golden/volume.v2.json"),
    ])
    .unwrap();
}

#[test]
fn volumes_of_version_1_are_read() {
    let volume: VolumeRecord = decode(include_bytes!("../golden/volume.v1.json")).unwrap();
    assert_eq!(volume.name.as_str(), "data");
    assert_eq!(volume.created, Time::from_unix(1_714_979_289, 123_456_789));
    assert_eq!(volume.labels["a"], "b");
    assert!(volume.anonymous);
    assert_eq!(volume.phase, VolumePhase::Importing);
}
