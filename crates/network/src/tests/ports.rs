//! Published ports.

use super::*;

#[test]
fn tcp_from_everywhere() {
    everywhere(Protocol::Tcp, ask);
}

#[test]
fn udp_from_everywhere() {
    everywhere(Protocol::Udp, ask_udp);
}

fn everywhere(protocol: Protocol, ask: fn(Option<&Path>, &str) -> io::Result<String>) {
    on_machine(|world| {
        let bridge = world.bridge("kraud0", &["172.17.0.0/16"]);
        let (one, two) = (world.container(&bridge, 2), world.container(&bridge, 3));
        serve(&one.path, 80);
        let wanted = [
            publish(protocol, 80, None, (8080, 8080)),
            publish(protocol, 80, Some("127.0.0.1"), (9090, 9090)),
        ];
        let published = world
            .wait(world.networks.publish(&one.target("one"), &wanted))
            .unwrap();
        assert_eq!(published.len(), 3, "{published:?}");
        let outside = Some(world.outside.as_path());
        assert_eq!(
            ask(outside, "192.0.2.1:8080").unwrap(),
            format!("{OUTSIDE} hello")
        );
        assert_eq!(
            ask(None, "127.0.0.1:8080").unwrap(),
            "172.17.0.1 hello",
            "loopback"
        );
        assert!(ask(None, "[::1]:8080").is_ok(), "loopback of IPv6");
        assert!(
            ask(None, "192.0.2.1:8080").is_ok(),
            "the machine by its own address"
        );
        assert!(
            ask(Some(&two.path), "192.0.2.1:8080").is_ok(),
            "hairpin to a neighbour"
        );
        assert!(
            ask(Some(&one.path), "192.0.2.1:8080").is_ok(),
            "hairpin to itself"
        );
        assert!(
            ask(Some(&two.path), "172.17.0.1:8080").is_ok(),
            "hairpin by the gateway"
        );
        assert!(
            ask(Some(&one.path), "172.17.0.1:8080").is_ok(),
            "hairpin to itself by the gateway"
        );
        assert!(
            ask(outside, "[2001:db8::1]:8080").is_ok(),
            "IPv6 by the userland path"
        );
        assert!(ask(None, "127.0.0.1:9090").is_ok());
        assert!(
            ask(outside, "192.0.2.1:9090").is_err(),
            "bound to loopback only"
        );

        assert!(world.wait(world.networks.unpublish(&one.id)).unwrap());
        assert!(!world.wait(world.networks.unpublish(&one.id)).unwrap());
        assert!(ask(outside, "192.0.2.1:8080").is_err());
        assert!(ask(None, "127.0.0.1:8080").is_err());
    });
}

#[test]
fn a_new_container_takes_over_a_udp_port() {
    on_machine(|world| {
        let bridge = world.bridge("kraud0", &["172.17.0.0/16"]);
        let (one, two) = (world.container(&bridge, 2), world.container(&bridge, 3));
        serve(&one.path, 80);
        serve(&two.path, 81);
        // One client keeps its port all the time, so the kernel takes it for one connection.
        let socket = inside(&world.outside, || UdpSocket::bind("0.0.0.0:5555")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let talk = || {
            socket.send_to(b"hello", "192.0.2.1:8080")?;
            socket.recv(&mut [0; 100])
        };
        let port = |to| [publish(Protocol::Udp, to, None, (8080, 8080))];
        world
            .wait(world.networks.publish(&one.target("one"), &port(80)))
            .unwrap();
        assert!(talk().is_ok());
        world.wait(world.networks.delete_sandbox(&one.id)).unwrap();
        world
            .wait(world.networks.publish(&two.target("two"), &port(81)))
            .unwrap();
        // Its flow, which it would keep alive for ever, is not led to the dead any more.
        assert!((0..20).any(|_| talk().is_ok()));
    });
}

#[test]
fn conflicts_are_told_in_dockers_words() {
    on_machine(|world| {
        let bridge = world.bridge("kraud0", &["172.17.0.0/16"]);
        let (one, two) = (world.container(&bridge, 2), world.container(&bridge, 3));
        let refused = |container: &Container, ip, port| {
            let wanted = [
                publish(Protocol::Tcp, 81, None, (7000, 7000)),
                publish(Protocol::Tcp, 80, ip, (port, port)),
            ];
            world
                .wait(world.networks.publish(&container.target("web"), &wanted))
                .unwrap_err()
                .message
        };
        world
            .wait(world.networks.publish(
                &one.target("one"),
                &[publish(Protocol::Tcp, 80, None, (8080, 8080))],
            ))
            .unwrap();
        let prefix = format!(
            "failed to set up container networking: driver failed programming external connectivity on endpoint web ({}): ",
            "e".repeat(64)
        );
        let allocated = format!("{prefix}Bind for 0.0.0.0:8080 failed: port is already allocated");
        assert_eq!(refused(&two, None, 8080), allocated);
        assert!(
            refused(&two, Some("127.0.0.1"), 8080)
                .ends_with("Bind for 127.0.0.1:8080 failed: port is already allocated")
        );
        let foreign = TcpListener::bind("0.0.0.0:8081").unwrap();
        let in_use = format!(
            "{prefix}failed to bind host port for 0.0.0.0:8081:172.17.0.3:80/tcp: address already in use"
        );
        assert_eq!(refused(&two, None, 8081), in_use);
        assert!(
            refused(&two, Some("203.0.113.9"), 8082).ends_with("cannot assign requested address")
        );
        drop(foreign);
        // All or nothing: 7000 was given back each time; and UDP is another port than TCP.
        let wanted = [
            publish(Protocol::Tcp, 80, None, (7000, 7000)),
            publish(Protocol::Udp, 80, None, (8080, 8080)),
        ];
        world
            .wait(world.networks.publish(&two.target("two"), &wanted))
            .unwrap();
        let other = [publish(Protocol::Tcp, 80, None, (8080, 8080))];
        world.wait(world.networks.unpublish(&one.id)).unwrap();
        world
            .wait(world.networks.publish(&two.target("two"), &other))
            .unwrap();
    });
}

#[test]
fn ranges_and_ephemeral_ports() {
    on_machine(|world| {
        let bridge = world.bridge("kraud0", &["172.17.0.0/16"]);
        let containers: Vec<_> = (2..5).map(|host| world.container(&bridge, host)).collect();
        let _foreign = TcpListener::bind("0.0.0.0:6001").unwrap();
        let range = [publish(Protocol::Tcp, 80, None, (6000, 6002))];
        let take =
            |n: usize| world.wait(world.networks.publish(&containers[n].target("c"), &range));
        assert_eq!(take(0).unwrap()[0].host_port, 6000);
        assert_eq!(take(1).unwrap()[0].host_port, 6002);
        assert!(
            take(2)
                .unwrap_err()
                .message
                .contains("6000 failed: port is already allocated")
        );
        let any = [
            publish(Protocol::Tcp, 80, None, (0, 0)),
            publish(Protocol::Tcp, 81, Some("127.0.0.1"), (0, 0)),
        ];
        let got = world
            .wait(world.networks.publish(&containers[2].target("c"), &any))
            .unwrap();
        assert!(got.iter().all(|port| port.host_port >= 32768));
        assert_eq!(
            (got.len(), got[0].host_port),
            (3, got[1].host_port),
            "one number for both families"
        );
        assert_ne!(got[1].host_port, got[2].host_port);
        let bad = [publish(Protocol::Tcp, 80, None, (9, 8))];
        assert!(
            world
                .wait(world.networks.publish(&containers[2].target("c"), &bad))
                .is_err()
        );
    });
}

#[test]
fn the_userland_path_keeps_half_closed_connections() {
    on_machine(|world| {
        let one = world.container(&world.bridge("kraud0", &["172.17.0.0/16"]), 2);
        serve(&one.path, 80);
        world
            .wait(world.networks.publish(
                &one.target("one"),
                &[publish(Protocol::Tcp, 80, None, (8080, 8080))],
            ))
            .unwrap();
        let mut stream = TcpStream::connect("127.0.0.1:8080").unwrap();
        let sent = vec![b'x'; 3_000_000];
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert_eq!(got.len(), sent.len() + "172.17.0.1 ".len());
    });
}

#[test]
fn udp_answers_come_from_the_address_that_was_asked() {
    on_machine(|world| {
        let one = world.container(&world.bridge("kraud0", &["172.17.0.0/16"]), 2);
        serve(&one.path, 80);
        let wanted = [publish(Protocol::Udp, 80, None, (8080, 8080))];
        world
            .wait(world.networks.publish(&one.target("one"), &wanted))
            .unwrap();
        let links = Links::open().unwrap();
        links
            .add_addresses(links.index("wan0").unwrap(), &[net("2001:db8::77/64")])
            .unwrap();
        // A connected socket takes answers from nobody else.
        assert!(ask_udp(Some(&world.outside), "[2001:db8::77]:8080").is_ok());
        assert!(ask_udp(Some(&world.outside), "[2001:db8::1]:8080").is_ok());
        assert!(ask_udp(None, "127.0.0.2:8080").is_ok());
    });
}

#[test]
fn a_thousand_ports_at_once() {
    on_machine(|world| {
        let one = world.container(&world.bridge("kraud0", &["172.17.0.0/16"]), 2);
        serve(&one.path, 20_999);
        let port = |number| publish(Protocol::Tcp, number, None, (number, number));
        let wanted: Vec<_> = (20_000..21_000).map(port).collect();
        let published = world
            .wait(world.networks.publish(&one.target("one"), &wanted))
            .unwrap();
        assert_eq!(published.len(), 2000);
        assert!(ask(Some(&world.outside), "192.0.2.1:20999").is_ok());
        assert!(world.wait(world.networks.unpublish(&one.id)).unwrap());
        assert!(!world.ruleset().contains("20999"));
    });
}
