//! One port for UDP and TCP: the engine's, by name or by chance, with one shard or several.

use std::net::{TcpListener, UdpSocket};

use transport::{Config, Engine, StartError};

fn config(listen: &str, shards: usize) -> Config {
    Config { listen: listen.parse().expect("an address"), public: Vec::new(), tcp: true, sessions_max: 1, shards }
}

async fn start(listen: &str, shards: usize) -> Result<Engine, StartError> {
    Engine::start(config(listen, shards), &prometheus::Registry::new()).await
}

/// Ports of one protocol are taken all the time: connections of other programs hold them.
#[tokio::test]
async fn where_any_port_will_do_one_is_found_that_is_free_for_both() {
    let taken: Vec<_> = (0..2000).map_while(|_| TcpListener::bind("127.0.0.1:0").ok()).collect();
    assert!(taken.len() > 500);
    let mut engines = Vec::new();
    for n in 0..50 {
        engines.push(start("127.0.0.1:0", 1 + n % 2).await.unwrap());
    }
    for engine in &engines[48..] {
        assert!(engine.reaches(engine.address()).await, "the self-test");
    }
}

/// That shards let each other have the port lets nobody else have it.
#[tokio::test]
async fn a_port_that_is_taken_is_told() {
    for shards in [1, 2] {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let started = start(&address.to_string(), shards).await;
        assert!(matches!(started, Err(StartError::Bind(told, _)) if told == address));
        let running = start("127.0.0.1:0", 2).await.unwrap();
        let address = running.address();
        let started = start(&address.to_string(), shards).await;
        assert!(
            matches!(started, Err(StartError::Bind(told, _)) if told == address),
            "another server of several shards is there"
        );
        assert!(TcpListener::bind(address).is_err());
        // An engine without an address that peers could reach is of no use.
        let started = start("0.0.0.0:0", shards).await;
        assert!(matches!(started, Err(StartError::NoAddress(_))));
    }
}

#[tokio::test]
async fn each_shard_answers_the_self_test() {
    let engine = start("127.0.0.1:0", 4).await.unwrap();
    for _ in 0..40 {
        assert!(engine.reaches(engine.address()).await, "from whatever port");
    }
}

/// The threads end with the handle, and the port is free again.
#[tokio::test]
async fn a_port_is_free_when_its_engine_is_gone() {
    let engine = start("127.0.0.1:0", 4).await.unwrap();
    let address = engine.address().to_string();
    drop(engine);
    for _ in 0..100 {
        if start(&address, 4).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("a thread did not end");
}
