//! Networks that lie directly on an interface of the machine.

use super::*;
use crate::{Changed, Live, Macvlan, MacvlanMode};

fn on(parent: &str, mode: MacvlanMode, nets: &[&str]) -> Bridge {
    let mut network = bridge(&format!("kr-{}", NetworkId::random().short()), nets);
    network.macvlan = Some(Macvlan {
        parent: parent.parse().unwrap(),
        mode,
    });
    network
}

#[test]
fn containers_are_neighbours_of_the_outside() {
    on_machine(|world| {
        let network = on("wan0", MacvlanMode::Bridge, &["192.0.2.0/24"]);
        let ensure = || world.wait(world.networks.ensure_bridge(&network)).unwrap();
        assert_eq!(ensure(), Changed::Same, "the parent was there");
        let (one, two) = (world.container(&network, 50), world.container(&network, 51));
        serve(&one.path, 80);
        for from in [&world.outside, &two.path] {
            assert!(ask(Some(from), "192.0.2.50:80").unwrap().ends_with("hello"));
        }
        // A restart mends what is missing, and leaves the rest.
        let live = |container: &Container| Live {
            id: container.id.clone(),
            endpoints: vec![container.endpoint.clone()],
            published: None,
        };
        inside(&two.path, || Links::open()?.remove("eth0")).unwrap();
        let report = world
            .wait(world.networks.reconcile(&[live(&one), live(&two)]))
            .unwrap();
        assert_eq!(report.mended_endpoints.len(), 1);
        assert!(ask(Some(&two.path), "192.0.2.50:80").is_ok());

        let eth0 = "eth0".parse().unwrap();
        assert!(world.wait(world.networks.detach(&one.id, &eth0)).unwrap());
        assert!(!world.wait(world.networks.detach(&one.id, &eth0)).unwrap());
        assert!(ask(Some(&two.path), "192.0.2.50:80").is_err());
        world
            .wait(world.networks.remove_bridge(&network.name))
            .unwrap();
        assert!(
            world.links().iter().any(|link| link.name == "wan0"),
            "a parent of others stays"
        );
    });
}

#[test]
fn a_container_restarts_at_once_with_its_address() {
    on_machine(|world| {
        let network = on("wan0", MacvlanMode::Bridge, &["192.0.2.0/24"]);
        world.wait(world.networks.ensure_bridge(&network)).unwrap();
        let one = world.container(&network, 50);
        // Something holds the namespace, as a process that ends slowly does.
        let _held = std::fs::File::open(&one.path).unwrap();
        for _ in 0..5 {
            world.wait(async {
                let networks = &world.networks;
                networks.delete_sandbox(&one.id).await.unwrap();
                networks.create_sandbox(&one.id).await.unwrap();
                networks.attach(&one.id, &one.endpoint).await.unwrap();
            });
        }
    });
}

#[test]
fn private_endpoints_are_apart() {
    on_machine(|world| {
        let network = on("wan0", MacvlanMode::Private, &["192.0.2.0/24"]);
        world.wait(world.networks.ensure_bridge(&network)).unwrap();
        let (one, two) = (world.container(&network, 50), world.container(&network, 51));
        serve(&one.path, 80);
        assert!(ask(Some(&world.outside), "192.0.2.50:80").is_ok());
        assert!(ask(Some(&two.path), "192.0.2.50:80").is_err());
    });
}

#[test]
fn a_parent_without_a_wire_comes_and_goes() {
    on_machine(|world| {
        let network = on("dm-0123456789ab", MacvlanMode::Bridge, &["10.9.0.0/24"]);
        let made = world.wait(world.networks.ensure_bridge(&network)).unwrap();
        assert_eq!(made, Changed::Created);
        let (one, two) = (world.container(&network, 2), world.container(&network, 3));
        serve(&one.path, 80);
        assert_eq!(
            ask(Some(&two.path), "10.9.0.2:80").unwrap(),
            "10.9.0.3 hello"
        );
        let there = || {
            world
                .links()
                .iter()
                .any(|link| link.name == "dm-0123456789ab")
        };
        world.wait(world.networks.reconcile(&[])).unwrap();
        assert!(there(), "a network that is known keeps its parent");
        world
            .wait(world.networks.remove_bridge(&network.name))
            .unwrap();
        assert!(!there());
        world.wait(world.networks.ensure_bridge(&network)).unwrap();
        let fresh = world
            .wait(Networks::open(settings(world.folder.path(), "0000a001")))
            .unwrap();
        world.wait(fresh.reconcile(&[])).unwrap();
        assert!(!there(), "one that nobody knows goes");
    });
}

#[test]
fn a_parent_must_be_there() {
    on_machine(|world| {
        for (parent, said) in [
            ("nosuch", "invalid subinterface vlan name nosuch"),
            ("nosuch.7", "was not found on the host: nosuch"),
            ("wan0.9999", "vlan id must be between 1-4094"),
        ] {
            let network = on(parent, MacvlanMode::Bridge, &["10.9.0.0/24"]);
            let error = world
                .wait(world.networks.ensure_bridge(&network))
                .unwrap_err();
            assert!(error.message.contains(said), "{error}");
        }
    });
}
