//! How long things take. Run with `cargo test --release -p network -- --ignored --nocapture figures`.

use std::time::Instant;

use super::*;

#[test]
#[ignore = "measures, proves nothing"]
fn figures() {
    on_machine(|world| {
        let bridge = world.bridge("kraud0", &["172.17.0.0/16"]);
        let mut times: [Vec<Duration>; 6] = Default::default();
        for host in 2..102 {
            let id = ContainerId::random();
            let end = endpoint(&bridge, "eth0", host);
            let container = Container {
                id: id.clone(),
                endpoint: end.clone(),
                path: PathBuf::new(),
            };
            let networks = &world.networks;
            let mut clock = Instant::now();
            let mut lap = |n: usize| {
                times[n].push(clock.elapsed());
                clock = Instant::now();
            };
            world.wait(networks.create_sandbox(&id)).unwrap();
            lap(0);
            world.wait(networks.attach(&id, &end)).unwrap();
            lap(1);
            world
                .wait(networks.publish(
                    &container.target("c"),
                    &[publish(Protocol::Tcp, 80, None, (0, 0))],
                ))
                .unwrap();
            lap(2);
            world.wait(networks.unpublish(&id)).unwrap();
            lap(3);
            world.wait(networks.detach(&id, &end.ifname)).unwrap();
            lap(4);
            world.wait(networks.delete_sandbox(&id)).unwrap();
            lap(5);
        }
        for (name, times) in [
            "create",
            "attach",
            "publish",
            "unpublish",
            "detach",
            "delete",
        ]
        .iter()
        .zip(&mut times)
        {
            times.sort();
            println!(
                "{name:10} median {:?} p95 {:?} max {:?}",
                times[50], times[95], times[99]
            );
        }
    });
}
