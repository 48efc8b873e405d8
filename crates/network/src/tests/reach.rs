//! Who reaches whom.

use super::*;

#[test]
fn outbound_traffic_is_masqueraded() {
    on_machine(|world| {
        let one = world.container(&world.bridge("kraud0", &["172.17.0.0/16"]), 2);
        serve(&world.outside, 80);
        assert_eq!(
            ask(Some(&one.path), "192.0.2.2:80").unwrap(),
            format!("{MACHINE} hello")
        );
        assert_eq!(
            ask_udp(Some(&one.path), "192.0.2.2:80").unwrap(),
            format!("{MACHINE} hello")
        );
    });
}

#[test]
fn neighbours_and_the_machine_reach_each_other() {
    on_machine(|world| {
        let bridge = world.bridge("kraud0", &["172.17.0.0/16"]);
        let (one, two) = (world.container(&bridge, 2), world.container(&bridge, 3));
        serve(&two.path, 80);
        assert_eq!(
            ask(Some(&one.path), "172.17.0.3:80").unwrap(),
            "172.17.0.2 hello"
        );
        assert_eq!(ask(None, "172.17.0.3:80").unwrap(), "172.17.0.1 hello");
        serve(&one.path, 81);
        assert_eq!(
            ask(Some(&one.path), "127.0.0.1:81").unwrap(),
            "127.0.0.1 hello"
        );
        assert_eq!(ask(Some(&one.path), "[::1]:81").unwrap(), "::1 hello");
    });
}

#[test]
fn the_outside_reaches_nothing_unpublished() {
    on_machine(|world| {
        let one = world.container(&world.bridge("kraud0", &["172.17.0.0/16"]), 2);
        serve(&one.path, 80);
        inside(&world.outside, || {
            let links = Links::open()?;
            links.set_default_route(links.index("wan")?, &ip(MACHINE))
        })
        .unwrap();
        assert!(ask(Some(&world.outside), "172.17.0.2:80").is_err());
        world
            .wait(world.networks.publish(
                &one.target("one"),
                &[publish(Protocol::Tcp, 80, None, (8080, 8080))],
            ))
            .unwrap();
        assert_eq!(
            ask(Some(&world.outside), "192.0.2.1:8080").unwrap(),
            format!("{OUTSIDE} hello")
        );
        // Published or not: only through the machine's own address.
        assert!(ask(Some(&world.outside), "172.17.0.2:80").is_err());
    });
}

#[test]
fn networks_are_isolated() {
    on_machine(|world| {
        let (left, right) = (
            world.bridge("kra-left", &["10.1.0.0/24"]),
            world.bridge("kra.right", &["10.2.0.0/24"]),
        );
        let (one, two) = (world.container(&left, 2), world.container(&right, 2));
        serve(&two.path, 80);
        assert!(ask(Some(&one.path), "10.2.0.2:80").is_err());
        world
            .wait(world.networks.publish(
                &two.target("two"),
                &[publish(Protocol::Tcp, 80, None, (8080, 8080))],
            ))
            .unwrap();
        assert!(ask(Some(&one.path), "192.0.2.1:8080").is_ok());
        // A sandbox may be in both.
        let second = endpoint(&right, "eth1", 9);
        world
            .wait(world.networks.attach(
                &one.id,
                &Endpoint {
                    gateways: Vec::new(),
                    ..second.clone()
                },
            ))
            .unwrap();
        assert_eq!(
            ask(Some(&one.path), "10.2.0.2:80").unwrap(),
            "10.2.0.9 hello"
        );
        assert!(
            world
                .wait(world.networks.detach(&one.id, &second.ifname))
                .unwrap()
        );
        assert!(
            !world
                .wait(world.networks.detach(&one.id, &second.ifname))
                .unwrap()
        );
        assert!(ask(Some(&one.path), "10.2.0.2:80").is_err());
    });
}

#[test]
fn internal_networks_are_cut_off() {
    on_machine(|world| {
        let hidden = Bridge {
            internal: true,
            ..bridge("kra-int", &["10.3.0.0/24"])
        };
        world.wait(world.networks.ensure_bridge(&hidden)).unwrap();
        let (one, two) = (world.container(&hidden, 2), world.container(&hidden, 3));
        serve(&two.path, 80);
        serve(&world.outside, 80);
        assert!(ask(Some(&one.path), "10.3.0.3:80").is_ok());
        inside(&one.path, || {
            let links = Links::open()?;
            links.set_default_route(links.index("eth0")?, &ip("10.3.0.1"))
        })
        .unwrap();
        assert!(ask(Some(&one.path), "192.0.2.2:80").is_err());
    });
}

#[test]
fn without_icc_neighbours_are_apart() {
    on_machine(|world| {
        let mut apart = Bridge {
            icc: false,
            ..bridge("kra-icc", &["10.4.0.0/24"])
        };
        world.wait(world.networks.ensure_bridge(&apart)).unwrap();
        let (one, two) = (world.container(&apart, 2), world.container(&apart, 3));
        serve(&two.path, 80);
        serve(&world.outside, 80);
        assert!(ask(Some(&one.path), "10.4.0.3:80").is_err());
        assert!(ask(Some(&one.path), "192.0.2.2:80").is_ok());
        assert!(ask(None, "10.4.0.3:80").is_ok());
        apart.icc = true;
        assert_eq!(
            world.wait(world.networks.ensure_bridge(&apart)).unwrap(),
            crate::Changed::Updated
        );
        assert!(ask(Some(&one.path), "10.4.0.3:80").is_ok());
    });
}

#[test]
fn dual_stack() {
    on_machine(|world| {
        let bridge = world.bridge("kraud6", &["10.6.0.0/24", "fd00:6::/64"]);
        let (one, two) = (world.container(&bridge, 2), world.container(&bridge, 3));
        serve(&two.path, 80);
        serve(&world.outside, 80);
        assert_eq!(
            ask(Some(&one.path), "[fd00:6::3]:80").unwrap(),
            "fd00:6::2 hello"
        );
        assert_eq!(
            ask(Some(&one.path), &format!("[{OUTSIDE_V6}]:80")).unwrap(),
            "2001:db8::1 hello"
        );
        world
            .wait(world.networks.publish(
                &two.target("two"),
                &[publish(Protocol::Tcp, 80, None, (8080, 8080))],
            ))
            .unwrap();
        assert_eq!(
            ask(Some(&world.outside), "[2001:db8::1]:8080").unwrap(),
            format!("{OUTSIDE_V6} hello")
        );
        assert!(ask(None, "[::1]:8080").is_ok());
        assert!(ask(Some(&two.path), "[2001:db8::1]:8080").is_ok());
    });
}

#[test]
fn settings_of_an_endpoint() {
    on_machine(|world| {
        let bridge = Bridge {
            mtu: Some(1400),
            ..bridge("kraud0", &["172.17.0.0/16"])
        };
        world.wait(world.networks.ensure_bridge(&bridge)).unwrap();
        let id = ContainerId::random();
        let mut end = endpoint(&bridge, "eth0", 7);
        end.sysctls = vec![("net.ipv4.conf.IFNAME.rp_filter".into(), "2".into())];
        let path = world.wait(world.networks.create_sandbox(&id)).unwrap();
        assert_eq!(
            world.wait(world.networks.create_sandbox(&id)).unwrap(),
            path,
            "creating is idempotent"
        );
        world.wait(world.networks.attach(&id, &end)).unwrap();
        let (link, rp_filter, mac) = inside(&path, || {
            let link = Links::open()?.find("eth0")?.unwrap();
            // The folder /sys shows another namespace; its mount is not ours.
            let rp_filter = std::fs::read_to_string("/proc/sys/net/ipv4/conf/eth0/rp_filter")?;
            Ok((
                link,
                rp_filter,
                std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/disable_ipv6")?,
            ))
        })
        .unwrap();
        assert_eq!((link.mtu, rp_filter.trim(), mac.trim()), (1400, "2", "1"));
        end.sysctls = vec![("kernel.shmmax".into(), "1".into())];
        end.ifname = "eth1".parse().unwrap();
        let before = world.links().len();
        assert!(world.wait(world.networks.attach(&id, &end)).is_err());
        assert_eq!(
            world.links().len(),
            before,
            "a failed attempt leaves nothing"
        );
    });
}

#[test]
fn who_has_a_route_reaches_unprotected_networks() {
    on_machine(|world| {
        let mut open = bridge("kraud0", &["172.17.0.0/16"]);
        open.unprotected = true;
        world.wait(world.networks.ensure_bridge(&open)).unwrap();
        let closed = world.bridge("kraud1", &["172.18.0.0/16"]);
        let (one, two) = (world.container(&open, 2), world.container(&closed, 2));
        serve(&one.path, 80);
        serve(&two.path, 80);
        inside(&world.outside, || {
            let links = Links::open()?;
            links.set_default_route(links.index("wan")?, &ip(MACHINE))
        })
        .unwrap();
        assert!(ask(Some(&world.outside), "172.17.0.2:80").is_ok());
        assert!(ask(Some(&world.outside), "172.18.0.2:80").is_err());
        assert!(
            ask(Some(&two.path), "172.17.0.2:80").is_err(),
            "networks are apart all the same"
        );
    });
}
