//! How long things take. Run with `cargo test --release -p network -- --ignored --nocapture figures`.

use std::time::Instant;

use super::*;

#[test]
#[ignore = "measures, proves nothing"]
fn figures() {
    on_machine(|world| {
        let bridge = world.bridge("kraud0", &["172.17.0.0/16"]);
        let names = [
            "create",
            "attach",
            "publish",
            "delete",
            "whole life",
            "until settled",
        ];
        let mut times: [Vec<Duration>; 6] = Default::default();
        for host in 2..102 {
            let id = ContainerId::random();
            let end = endpoint(&bridge, "eth0", host);
            let container = Container {
                id: id.clone(),
                endpoint: end.clone(),
                path: PathBuf::new(),
            };
            let (networks, port) = (&world.networks, [publish(Protocol::Tcp, 80, None, (0, 0))]);
            let begun = Instant::now();
            let mut clock = begun;
            let mut lap = |n: usize| {
                times[n].push(clock.elapsed());
                clock = Instant::now();
            };
            world.wait(networks.create_sandbox(&id)).unwrap();
            lap(0);
            world.wait(networks.attach(&id, &end)).unwrap();
            lap(1);
            if host % 2 == 0 {
                world
                    .wait(networks.publish(&container.target("c"), &port))
                    .unwrap();
                lap(2);
            }
            world.wait(networks.delete_sandbox(&id)).unwrap();
            lap(3);
            times[4].push(begun.elapsed());
            world.wait(networks.settled());
            times[5].push(begun.elapsed());
        }
        for (name, times) in names.iter().zip(&mut times) {
            times.sort();
            let at = |percent: usize| times[(times.len() - 1) * percent / 100];
            println!(
                "{name:13} median {:?} p95 {:?} max {:?}",
                at(50),
                at(95),
                at(100)
            );
        }
    });
}
