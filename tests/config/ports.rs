//! Where the gateway listens: addresses, ports that must not be given twice, and ports as others see them.

use causeway::config::Config;

use super::{Scratch, env, refused};

#[test]
fn an_exposed_address_needs_a_word() {
    assert_eq!(
        refused(&env([
            ("GW_GATEWAY_BIND", "0.0.0.0"),
            ("GW_OPS_BIND", "::1,192.0.2.7")
        ])),
        "the configuration has 2 problems:\n  \
         gateway.bind (GW_GATEWAY_BIND): expected a loopback address, got 0.0.0.0: there is no authentication, so \
         whoever reaches the port can use it; set gateway.allow_exposed = true if that is meant\n  \
         ops.bind (GW_OPS_BIND): expected a loopback address, got 192.0.2.7: there is no authentication, so \
         whoever reaches the port can use it; set gateway.allow_exposed = true if that is meant"
    );
    let meant = env([
        ("GW_GATEWAY_BIND", "0.0.0.0"),
        ("GW_GATEWAY_ALLOW_EXPOSED", "true"),
    ]);
    assert!(Config::load(&meant).is_ok());
}

#[test]
fn ports_and_certificates_must_agree() {
    let scratch = Scratch::new("pairs");
    let pem = scratch.file("cert.pem", "x").display().to_string();
    assert_eq!(
        refused(&env([
            ("GW_VOICE_PORT", "8080"),
            ("GW_NATS_TLS_CERT", &pem),
            ("GW_NATS_PASSWORD", "p"),
            ("GW_VOICE_MAX_MESSAGE", "1GiB")
        ])),
        "the configuration has 4 problems:\n  \
         voice.port (GW_VOICE_PORT): expected a port of its own, 8080 is that of gateway.port too\n  \
         voice.max_message (GW_VOICE_MAX_MESSAGE): expected at most gateway.max_receiving, or no such message could ever arrive\n  \
         nats.tls_cert (GW_NATS_TLS_CERT): expected nats.tls_key beside it\n  \
         nats.password (GW_NATS_PASSWORD): expected nats.user beside it"
    );
    // any number of doors may take any free port
    assert!(
        Config::load(&env([
            ("GW_VOICE_PORT", "0"),
            ("GW_GATEWAY_PORT", "0"),
            ("GW_OPS_PORT", "0")
        ]))
        .is_ok()
    );
}

#[test]
fn the_port_of_the_own_server_must_agree_too() {
    assert_eq!(
        refused(&env([("GW_CAD_PORT", "4222")])),
        "the configuration has a problem:\n  \
         nats.port (default): expected a port of its own, 4222 is that of cad.port too"
    );
    // where another's is used, that number is free
    let elsewhere = env([("GW_CAD_PORT", "4222"), ("GW_NATS_URL", "nats://10.0.0.5:4222")]);
    assert!(Config::load(&elsewhere).is_ok());
    assert_eq!(
        refused(&env([("GW_NATS_URL", "nats://a:hunter2@host:99999")])),
        "the configuration has a problem:\n  \
         nats.url (GW_NATS_URL): expected a URL such as \"nats://host:4222\" or \"tls://host:4222\", \
         got \"nats://…@host:99999\""
    );
}

#[test]
fn ports_as_others_see_them_are_those_the_gateway_has() {
    // 0, as where a proxy has taken a port over, says nothing
    let config = Config::load(&env([("GW_LINKS_PORTS", "cad=13939,ops=0")])).unwrap();
    assert_eq!(
        config.links.ports.into_iter().collect::<Vec<_>>(),
        [("cad".to_owned(), 13939)]
    );
    assert_eq!(
        refused(&env([("GW_LINKS_PORTS", "cda=13939,cad=off")])),
        "the configuration has 2 problems:\n  \
         links.ports.cad (GW_LINKS_PORTS): expected a port from 0 to 65535, got \"off\"\n  \
         links.ports.cda (GW_LINKS_PORTS): expected a port that the gateway has: gateway, ops, nats, or a dialect's name"
    );
}
