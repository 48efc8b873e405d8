//! Crashes, leaks, other people's rules.

mod random;

use super::*;
use crate::{Changed, LinkName, Live};

fn live(container: &Container, published: Option<(Target, Vec<crate::Published>)>) -> Live {
    Live {
        id: container.id.clone(),
        endpoints: vec![container.endpoint.clone()],
        published,
    }
}

/// A second daemon's view of the same instance: what a restart after a crash sees.
fn restarted(world: &World) -> Networks {
    world
        .wait(Networks::open(settings(world.folder.path(), "0000a001")))
        .unwrap()
}

#[test]
fn a_restart_adopts_the_living_and_removes_the_rest() {
    on_machine(|world| {
        let bridge = world.bridge("kraud0", &["172.17.0.0/16"]);
        world.bridge("kra-old", &["10.9.0.0/24"]);
        let (one, two) = (world.container(&bridge, 2), world.container(&bridge, 3));
        serve(&one.path, 80);
        serve(&two.path, 80);
        let port = |number| [publish(Protocol::Tcp, 80, None, (number, number))];
        let published = world
            .wait(world.networks.publish(&one.target("one"), &port(8080)))
            .unwrap();
        world
            .wait(world.networks.publish(&two.target("two"), &port(8081)))
            .unwrap();

        // The crash takes the sockets, the kernel's part stays.
        for container in [&one, &two] {
            world.wait(
                world
                    .networks
                    .0
                    .ports
                    .release(&container.id)
                    .unwrap()
                    .close(),
            );
        }
        let networks = restarted(world);
        let outside = Some(world.outside.as_path());
        assert!(
            ask(outside, "192.0.2.1:8080").is_ok(),
            "published ports outlive a crash"
        );
        assert_eq!(
            world.wait(networks.ensure_bridge(&bridge)).unwrap(),
            Changed::Same
        );
        let published = (one.target("one"), published);
        let report = world
            .wait(networks.reconcile(&[live(&one, Some(published.clone()))]))
            .unwrap();
        assert_eq!(report.removed_sandboxes, [two.id.as_str()]);
        assert_eq!(report.removed_links, ["kra-old"]);
        assert!(
            report.failed_ports.is_empty()
                && report.missing_sandboxes.is_empty()
                && report.mended_endpoints.is_empty()
        );
        assert!(ask(outside, "192.0.2.1:8080").is_ok());
        assert!(
            ask(None, "127.0.0.1:8080").is_ok(),
            "the userland path is back"
        );
        assert!(ask(outside, "192.0.2.1:8081").is_err());

        // Nothing changes the second time.
        let again = world
            .wait(networks.reconcile(&[live(&one, Some(published))]))
            .unwrap();
        assert_eq!(again, crate::Report::default());
        world.wait(networks.tear_down()).unwrap();
    });
}

#[test]
fn a_restart_mends_what_is_broken() {
    on_machine(|world| {
        let bridge = world.bridge("kraud0", &["172.17.0.0/16"]);
        let (one, two) = (world.container(&bridge, 2), world.container(&bridge, 3));
        let lost = Container {
            id: ContainerId::random(),
            ..two.clone()
        };
        let published = world
            .wait(world.networks.publish(
                &one.target("one"),
                &[publish(Protocol::Tcp, 80, None, (8080, 8080))],
            ))
            .unwrap();
        world.wait(world.networks.0.ports.release(&one.id).unwrap().close());
        let _foreign = TcpListener::bind("0.0.0.0:8080").unwrap();
        serve(&one.path, 80);
        Links::open().unwrap().remove("kraud0").unwrap();
        world
            .wait(world.networks.detach(&two.id, &two.endpoint.ifname))
            .unwrap();

        let networks = restarted(world);
        assert_eq!(
            world.wait(networks.ensure_bridge(&bridge)).unwrap(),
            Changed::Created
        );
        let wanted = [
            live(&one, Some((one.target("one"), published))),
            live(&two, None),
            live(&lost, None),
        ];
        let report = world.wait(networks.reconcile(&wanted)).unwrap();
        assert_eq!(report.mended_endpoints.len(), 2, "{report:?}");
        assert_eq!(report.missing_sandboxes, [lost.id]);
        assert_eq!(report.failed_ports.len(), 1, "{report:?}");
        assert!(ask(Some(&two.path), "172.17.0.2:80").is_ok());
        assert!(ask(Some(&world.outside), "192.0.2.1:8080").is_ok());
        world.wait(networks.tear_down()).unwrap();
    });
}

#[test]
fn a_flushed_table_is_built_again() {
    on_machine(|world| {
        let bridge = world.bridge("kraud0", &["172.17.0.0/16"]);
        let (one, two) = (world.container(&bridge, 2), world.container(&bridge, 3));
        serve(&one.path, 80);
        let port = |number| [publish(Protocol::Tcp, 80, None, (number, number))];
        world
            .wait(world.networks.publish(&one.target("one"), &port(8080)))
            .unwrap();
        nft("flush ruleset");
        world
            .wait(world.networks.publish(&two.target("two"), &port(8081)))
            .unwrap();
        assert!(
            ask(Some(&world.outside), "192.0.2.1:8080")
                .unwrap()
                .starts_with(OUTSIDE)
        );
        assert!(world.ruleset().contains("8081"));
        nft("flush ruleset");
        world.wait(world.networks.unpublish(&two.id)).unwrap();
        assert!(
            ask(Some(&world.outside), "192.0.2.1:8080")
                .unwrap()
                .starts_with(OUTSIDE)
        );
    });
}

fn nft(command: &str) {
    assert!(
        std::process::Command::new("nft")
            .arg(command)
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn two_instances_and_foreign_rules_do_not_disturb_each_other() {
    on_machine(|world| {
        nft(
            "table ip admin { chain mine { type filter hook forward priority 10; policy accept; counter; }; }",
        );
        let admin = || {
            let output = std::process::Command::new("nft")
                .args(["-s", "list", "table", "ip", "admin"])
                .output()
                .unwrap();
            output.stdout
        };
        let rules = admin();
        let one = world.container(&world.bridge("kraud0", &["172.17.0.0/16"]), 2);
        let other = world
            .wait(Networks::open(settings(world.folder.path(), "0000b002")))
            .unwrap();
        let second = bridge("kraud1", &["172.18.0.0/16"]);
        world.wait(other.ensure_bridge(&second)).unwrap();
        let id = ContainerId::random();
        let path = world.wait(other.create_sandbox(&id)).unwrap();
        world
            .wait(other.attach(&id, &endpoint(&second, "eth0", 2)))
            .unwrap();
        serve(&one.path, 80);
        serve(&world.outside, 80);
        assert!(
            ask(Some(&path), "172.17.0.2:80").is_err(),
            "instances are isolated"
        );
        let port = [publish(Protocol::Tcp, 80, None, (8080, 8080))];
        world
            .wait(world.networks.publish(&one.target("one"), &port))
            .unwrap();
        assert!(ask(Some(&path), "192.0.2.1:8080").is_ok());
        let target = Target {
            id: id.clone(),
            ..one.target("two")
        };
        let refused = world.wait(other.publish(&target, &port)).unwrap_err();
        assert!(
            refused.message.contains("address already in use"),
            "{refused}"
        );

        world.wait(other.reconcile(&[])).unwrap();
        assert!(ask(Some(&one.path), "192.0.2.2:80").is_ok());
        world.wait(other.tear_down()).unwrap();
        assert!(ask(Some(&one.path), "192.0.2.2:80").is_ok());
        assert!(ask(Some(&world.outside), "192.0.2.1:8080").is_ok());
        assert!(world.links().iter().all(|link| link.name != "kraud1"));
        assert!(!world.ruleset().contains("kraud_0000b002"));
        assert_eq!(admin(), rules);
    });
}

#[test]
fn fifty_in_parallel_leave_nothing() {
    on_machine(|world| {
        let bridge = world.bridge("kraud0", &["172.17.0.0/16"]);
        let counts = || (world.links(), world.mounts(), world.ruleset());
        let before = counts();
        let life = async |host: u16| {
            let id = ContainerId::random();
            let networks = world.networks.clone();
            let end = endpoint(&bridge, "eth0", host.into());
            networks.create_sandbox(&id).await?;
            networks.attach(&id, &end).await?;
            let v4 = match end.addresses[0].addr() {
                IpAddr::V4(v4) => Some(v4),
                IpAddr::V6(_) => None,
            };
            let target = Target {
                id: id.clone(),
                name: "c".into(),
                endpoint_id: String::new(),
                v4,
                v6: None,
            };
            networks
                .publish(&target, &[publish(Protocol::Tcp, 80, None, (0, 0))])
                .await?;
            networks.delete_sandbox(&id).await
        };
        world.wait(async {
            let mut lives: Vec<_> = (2..52).map(|host| Box::pin(life(host))).collect();
            let mut waiting = lives.iter_mut().collect::<Vec<_>>();
            std::future::poll_fn(|context| {
                waiting.retain_mut(|life| match life.as_mut().poll(context) {
                    std::task::Poll::Ready(result) => {
                        assert!(result.unwrap());
                        false
                    }
                    std::task::Poll::Pending => true,
                });
                if waiting.is_empty() {
                    std::task::Poll::Ready(())
                } else {
                    std::task::Poll::Pending
                }
            })
            .await;
        });
        world.wait(world.networks.settled());
        assert_eq!(counts(), before);
        assert_eq!(
            std::fs::read_dir(world.folder.path().join("0000a001/netns"))
                .unwrap()
                .count(),
            0
        );
    });
}

#[test]
fn half_made_things_are_no_obstacle() {
    on_machine(|world| {
        let bridge = world.bridge("kraud0", &["172.17.0.0/16"]);
        let id = ContainerId::random();
        // A crash between making the file and mounting on it.
        std::fs::write(world.networks.sandbox_path(&id), "").unwrap();
        assert!(
            world
                .wait(world.networks.attach(&id, &endpoint(&bridge, "eth0", 2)))
                .is_err()
        );
        world.wait(world.networks.create_sandbox(&id)).unwrap();
        let end = endpoint(&bridge, "eth0", 2);
        world.wait(world.networks.attach(&id, &end)).unwrap();
        world.wait(world.networks.attach(&id, &end)).unwrap();
        assert!(world.wait(world.networks.delete_sandbox(&id)).unwrap());
        assert!(!world.wait(world.networks.delete_sandbox(&id)).unwrap());
        std::fs::write(world.networks.sandbox_path(&id), "").unwrap();
        assert!(world.wait(world.networks.delete_sandbox(&id)).unwrap());
    });
}

#[test]
fn bridges_come_change_and_go() {
    on_machine(|world| {
        let networks = &world.networks;
        let rules = world.ruleset();
        let mut bridge = bridge("kraud0", &["10.7.0.0/24", "10.8.0.0/24", "fd00:7::/64"]);
        assert_eq!(
            world.wait(networks.ensure_bridge(&bridge)).unwrap(),
            Changed::Created
        );
        assert_eq!(
            world.wait(networks.ensure_bridge(&bridge)).unwrap(),
            Changed::Same
        );
        bridge.subnets.remove(0);
        bridge.mtu = Some(1300);
        assert_eq!(
            world.wait(networks.ensure_bridge(&bridge)).unwrap(),
            Changed::Updated
        );
        let links = Links::open().unwrap();
        let link = links.find("kraud0").unwrap().unwrap();
        let mut addresses = links.addresses(Some(link.index)).unwrap();
        addresses.retain(|address| {
            address.to_string() != "fe80" && !address.to_string().starts_with("fe80")
        });
        assert_eq!(
            (link.mtu, addresses),
            (1300, vec![net("10.8.0.1/24"), net("fd00:7::1/64")])
        );
        assert!(
            world
                .wait(networks.used_networks())
                .unwrap()
                .contains(&net("10.8.0.0/24"))
        );
        assert!(world.wait(networks.remove_bridge(&bridge.name)).unwrap());
        assert!(!world.wait(networks.remove_bridge(&bridge.name)).unwrap());
        assert_eq!(world.ruleset(), rules);

        // What kraud did not make it does not remove.
        let foreign: LinkName = "wan0".parse().unwrap();
        assert!(!world.wait(networks.remove_bridge(&foreign)).unwrap());
        assert!(links.find("wan0").unwrap().is_some());
        let loopback = crate::Bridge {
            name: "lo".parse().unwrap(),
            ..bridge
        };
        assert_eq!(
            world
                .wait(networks.ensure_bridge(&loopback))
                .unwrap_err()
                .kind,
            types::Kind::Conflict
        );
    });
}

#[test]
fn a_container_restarts_at_once() {
    on_machine(|world| {
        let bridge = world.bridge("kraud0", &["172.17.0.0/16"]);
        let end = endpoint(&bridge, "eth0", 2);
        let id = ContainerId::random();
        let container = Container {
            id: id.clone(),
            endpoint: end.clone(),
            path: world.networks.sandbox_path(&id),
        };
        serve(&world.outside, 80);
        let port = [publish(Protocol::Tcp, 80, None, (8080, 8080))];
        for _ in 0..5 {
            world.wait(world.networks.create_sandbox(&id)).unwrap();
            world.wait(world.networks.attach(&id, &end)).unwrap();
            world
                .wait(world.networks.publish(&container.target("c"), &port))
                .unwrap();
            assert!(ask(Some(&container.path), "192.0.2.2:80").is_ok());
            serve(&container.path, 80);
            assert!(ask(Some(&world.outside), "192.0.2.1:8080").is_ok());
            world.wait(world.networks.delete_sandbox(&id)).unwrap();
        }
        world.wait(world.networks.settled());
        assert!(!world.ruleset().contains("8080"));
    });
}

#[test]
fn a_socket_that_outlives_its_container_keeps_no_link() {
    on_machine(|world| {
        let one = world.container(&world.bridge("kraud0", &["172.17.0.0/16"]), 2);
        let _held = std::fs::File::open(&one.path).unwrap();
        let before = world.links().len();
        world.wait(world.networks.delete_sandbox(&one.id)).unwrap();
        world.wait(world.networks.settled());
        assert_eq!(world.links().len(), before - 1);
    });
}

#[test]
fn foreign_chains_that_drop_are_named() {
    on_machine(|world| {
        assert!(
            world
                .wait(world.networks.forward_blockers())
                .unwrap()
                .is_empty()
        );
        nft(
            "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }",
        );
        assert_eq!(
            world.wait(world.networks.forward_blockers()).unwrap(),
            ["ip filter FORWARD"]
        );
    });
}
