use serde_json::json;

use super::*;

#[test]
fn forms_on_the_wire() {
    for (value, text) in [
        (
            serde_json::to_value(PoolSource::Devices {
                paths: vec!["/dev/x".into()],
                mirror: true,
            })
            .unwrap(),
            json!({"kind": "devices", "paths": ["/dev/x"], "mirror": true}),
        ),
        (
            serde_json::to_value(PoolSource::File {
                size: 5,
                path: None,
            })
            .unwrap(),
            json!({"kind": "file", "size": 5}),
        ),
        (
            serde_json::to_value(PoolGrow::Fill).unwrap(),
            json!({"kind": "fill"}),
        ),
        (
            serde_json::to_value(Error::from(crate::Error::not_found("gone"))).unwrap(),
            json!({"message": "gone", "kind": "not_found"}),
        ),
    ] {
        assert_eq!(value, text);
    }
    let wanted: VolumeCreate = serde_json::from_value(json!({"name": "v1"})).unwrap();
    assert_eq!(wanted.name.as_deref(), Some("v1"));
    // A typo must not go unnoticed.
    assert!(serde_json::from_value::<VolumeCreate>(json!({"nam": "v1"})).is_err());
    let request: RollbackRequest = serde_json::from_value(json!({"snapshot": "s"})).unwrap();
    assert!(!request.restart);
}

/// A program that knows this version reads what a later one sends.
#[test]
fn later_fields_are_ignored() {
    let snapshot = json!({
        "name": "monday", "id": "a".repeat(64), "volume": "data",
        "created": "2026-11-25T02:00:00Z", "origin": "automatic", "period": "daily",
        "colour": "blue",
    });
    let snapshot: Snapshot = serde_json::from_value(snapshot).unwrap();
    assert_eq!(snapshot.origin.as_str(), "automatic");
    assert_eq!(snapshot.used, None);
}
