//! `codecast doctor`: does what this configuration asks for work on this machine? Each line says what to do.
//!
//! It binds what a server would bind; beside a running server of the same configuration it says so.

use std::path::Path;

use transport::{Engine, StartError, sdp::Protocol};

use crate::{cli, config::Config, serve, srt};

/// True when nothing has to be done.
pub async fn run(config: &Config) -> bool {
    let webrtc = webrtc(config).await;
    webrtc & helper(config.transcode.program.as_deref()) & srt(config).await
}

async fn webrtc(config: &Config) -> bool {
    let engine = match Engine::start(serve::connecting(&config.webrtc), &prometheus::Registry::new()).await {
        Ok(engine) => engine,
        Err(StartError::Bind(address, _)) => {
            return say(false, &format!("UDP {address} is in use. Beside a running server, look at its log, or stop it first"));
        }
        Err(error) => return say(false, &error.to_string()),
    };
    let mut well = true;
    for candidate in engine.candidates().iter().filter(|candidate| candidate.protocol == Protocol::Udp) {
        let address = candidate.address;
        let told = if engine.reaches(address).await {
            say(true, &format!("UDP {address}, told to WebRTC peers, reaches this server"))
        } else {
            say(false, &format!("UDP {address}, told to WebRTC peers, does not reach this server from here. {UNREACHED}"))
        };
        well &= told;
    }
    well
}

/// What to do about an advertised address that does not answer.
pub const UNREACHED: &str = "Is it this machine's address as others see it (webrtc.advertise)? Is its UDP port open in the firewall and forwarded? \
                             Some routers do not take their own address back: then try from outside";

fn helper(configured: Option<&Path>) -> bool {
    match transcode::find_program(configured) {
        Some(program) => say(true, &format!("the transcoder is {}", program.display())),
        None => say(
            false,
            "codecast-transcode is neither beside this program nor in PATH (transcode.program): streams with B-frames cannot be \
             watched by WebRTC, RTMP's sound not heard there, and WHIP's sound is Opus in HLS",
        ),
    }
}

async fn srt(config: &Config) -> bool {
    if config.srt.address.is_none() {
        return true;
    }
    match (srt::Programs { configured: config.transcode.program.clone() }).test().await {
        Ok(()) => say(true, "SRT can be received"),
        Err(words) => say(false, &format!("SRT cannot be received: {words}")),
    }
}

fn say(well: bool, text: &str) -> bool {
    cli::print(&format!("{} {text}\n", if well { "ok  " } else { "FAIL" }));
    well
}
