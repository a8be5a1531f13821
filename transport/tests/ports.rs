//! One port for UDP and TCP: the engine's, by name or by chance.

use std::net::{TcpListener, UdpSocket};

use transport::{Config, Engine, StartError};

fn config(listen: &str) -> Config {
    Config { listen: listen.parse().expect("an address"), public: Vec::new(), tcp: true, sessions_max: 1 }
}

/// Ports of one protocol are taken all the time: connections of other programs hold them.
#[tokio::test]
async fn where_any_port_will_do_one_is_found_that_is_free_for_both() {
    let taken: Vec<_> = (0..2000).map_while(|_| TcpListener::bind("127.0.0.1:0").ok()).collect();
    assert!(taken.len() > 500);
    let mut engines = Vec::new();
    for _ in 0..50 {
        engines.push(Engine::start(config("127.0.0.1:0"), &prometheus::Registry::new()).await.unwrap());
    }
    let engine = engines.last().unwrap();
    assert!(engine.reaches(engine.address()).await, "the self-test");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let started = Engine::start(config(&address.to_string()), &prometheus::Registry::new()).await;
    assert!(matches!(started, Err(StartError::Bind(told, _)) if told == address));
    // An engine without an address that peers could reach is of no use.
    let started = Engine::start(config("0.0.0.0:0"), &prometheus::Registry::new()).await;
    assert!(matches!(started, Err(StartError::NoAddress(_))));
}
