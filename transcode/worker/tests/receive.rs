//! `codecast-transcode receive`, as codecast starts and ends it.

use std::{
    io::{Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
};

use transcode::wire::{
    Message, Reader,
    receive::{Heard, Listen},
};

/// One that listens, and where.
fn listen() -> (Child, u16) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_codecast-transcode"))
        .arg("receive")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cargo has built it");
    let order = Listen { from_port: 9, latency_ms: 20, passphrase: None }.encode();
    child.stdin.as_mut().expect("it is a pipe").write_all(&order.head).expect("it reads its order");
    let mut reader = Reader::<Heard>::default();
    let stdout = child.stdout.as_mut().expect("it is a pipe");
    let mut bytes = [0; 1024];
    loop {
        let length = stdout.read(&mut bytes).expect("it can be read");
        assert!(length > 0, "it ended instead");
        reader.buffer().extend_from_slice(&bytes[..length]);
        match reader.next_message().expect("it speaks the protocol") {
            Some(Heard::Listening { port }) => return (child, port),
            None => {}
            other => panic!("{other:?}"),
        }
    }
}

fn end(mut child: Child) -> ExitStatus {
    drop(child.stdin.take());
    child.wait().expect("it ends by itself")
}

/// libsrt takes its threads down by itself; where the process ended around them it crashed, one time in five.
#[test]
fn one_that_is_not_needed_ends_in_order() {
    for turn in 0..30 {
        let (child, port) = listen();
        assert!(port > 0);
        let status = end(child);
        assert!(status.success(), "turn {turn}: {status}");
    }
}
