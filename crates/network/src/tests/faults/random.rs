//! Many operations in random order, crashes among them, and then a count of what is left.

use super::*;

/// What there ought to be of one container.
#[derive(Default)]
struct Expected {
    sandbox: bool,
    endpoint: bool,
    published: Option<(Target, Vec<crate::Published>)>,
}

/// A linear congruential generator: the seed makes a failure repeatable.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

#[test]
fn two_hundred_random_operations_leave_nothing() {
    on_machine(|world| {
        let before = (world.links(), world.mounts(), world.ruleset());
        let bridge = world.bridge("kraud0", &["172.17.0.0/16"]);
        let containers: Vec<_> = (2..8)
            .map(|host| {
                let (id, endpoint) = (ContainerId::random(), endpoint(&bridge, "eth0", host));
                Container {
                    path: world.networks.sandbox_path(&id),
                    id,
                    endpoint,
                }
            })
            .collect();
        let mut expected: Vec<Expected> = containers.iter().map(|_| Expected::default()).collect();
        let (mut networks, mut dice) = (world.networks.clone(), Dice(7));
        for step in 0..200 {
            let n = dice.roll(containers.len());
            if dice.roll(20) == 0 {
                networks = crash(world, &networks, &bridge, &containers, &expected);
            } else {
                operate(
                    world,
                    &networks,
                    &containers[n],
                    &mut expected[n],
                    dice.roll(6),
                );
            }
            let ports = expected
                .iter()
                .filter_map(|known| known.published.as_ref())
                .count();
            if step % 20 == 19 {
                world.wait(networks.settled());
                assert_eq!(
                    world.ruleset().matches(": 172.17.0.").count(),
                    ports,
                    "step {step}"
                );
            }
        }
        for container in &containers {
            world.wait(networks.delete_sandbox(&container.id)).unwrap();
        }
        world.wait(networks.remove_bridge(&bridge.name)).unwrap();
        world.wait(networks.settled());
        assert_eq!((world.links(), world.mounts(), world.ruleset()), before);
    });
}

fn operate(
    world: &World,
    networks: &Networks,
    container: &Container,
    known: &mut Expected,
    what: usize,
) {
    let Container { id, endpoint, .. } = container;
    match what {
        0 | 1 => {
            world.wait(networks.create_sandbox(id)).unwrap();
            known.sandbox = true;
        }
        2 => {
            let attached = world.wait(networks.attach(id, endpoint));
            assert_eq!(attached.is_ok(), known.sandbox, "{attached:?}");
            known.endpoint = known.sandbox;
        }
        3 if known.endpoint => {
            let port = [publish(Protocol::Tcp, 80, Some("192.0.2.1"), (0, 0))];
            let target = container.target("c");
            known.published = Some((
                target.clone(),
                world.wait(networks.publish(&target, &port)).unwrap(),
            ));
        }
        4 => {
            let had = world.wait(networks.unpublish(id)).unwrap();
            assert_eq!(had, known.published.take().is_some());
        }
        5 => {
            assert_eq!(
                world.wait(networks.delete_sandbox(id)).unwrap(),
                known.sandbox
            );
            *known = Expected::default();
        }
        _ => {}
    }
}

/// Ends one daemon without a farewell and starts the next.
fn crash(
    world: &World,
    old: &Networks,
    bridge: &Bridge,
    containers: &[Container],
    expected: &[Expected],
) -> Networks {
    // The sockets of a dead process are closed; its table in the kernel stays.
    for id in old.0.ports.owners() {
        world.wait(old.0.ports.release(&id).unwrap().close());
    }
    let networks = restarted(world);
    world.wait(networks.ensure_bridge(bridge)).unwrap();
    let live: Vec<_> = containers
        .iter()
        .zip(expected)
        .filter(|(_, known)| known.sandbox)
        .map(|(container, known)| Live {
            id: container.id.clone(),
            endpoints: known
                .endpoint
                .then(|| container.endpoint.clone())
                .into_iter()
                .collect(),
            published: known.published.clone(),
        })
        .collect();
    let report = world.wait(networks.reconcile(&live)).unwrap();
    assert!(
        report.missing_sandboxes.is_empty() && report.failed_ports.is_empty(),
        "{report:?}"
    );
    networks
}
