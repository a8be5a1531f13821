//! One RTMP connection as a publisher's server, sans-IO.
//!
//! Calling order: `handle_input` or `handle_timeout`, then `poll_output` until it is `None`, then
//! wait for input, `poll_timeout` or the answer to `PublishRequested`, which is `accept` or
//! `close`. After `Event::Closed` the session only waits for the peer to read its farewell;
//! `is_finished` tells when to hang up.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use media_core::{Announcement, Sample, StreamKey};

use super::{
    amf0::Value,
    chunk,
    close::CloseReason,
    command::{self, Call, Command, Dialect, NAME_BYTES_MAX, Status},
    feed::{Dropped, Drops, Fed, Feed},
    handshake,
    message::{self, Message},
};
use crate::repair::Repairs;

/// The window that we ask for and acknowledge until the peer names its own.
const WINDOW_BYTES: u32 = 2_500_000;
/// The smallest window of a peer that we follow: smaller ones ask for a storm of acknowledgements.
const WINDOW_BYTES_MIN: u32 = 64 << 10;
/// Our replies are short; a chunk of this size holds any of them.
const CHUNK_SIZE: u32 = 4096;
/// Messages taken out of one aggregate: servers bundle a second or two of media. More of them are tiny,
/// and a peer's way to turn few bytes into many Samples.
const AGGREGATE_MESSAGES_MAX: usize = 1024;
/// The message stream that createStream grants. One connection publishes once.
const STREAM_ID: f64 = 1.0;
/// How long a farewell may take to reach the peer before the socket goes, since closing at once
/// can destroy what was not read yet. It slows down whoever tries keys, too.
pub const LINGER: Duration = Duration::from_secs(1);

/// How long a peer may take for each step.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    pub handshake: Duration,
    /// From the end of the handshake to `publish`.
    pub publish: Duration,
    /// Without audio or video. A paused encoder is silent for seconds.
    pub idle: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { handshake: Duration::from_secs(5), publish: Duration::from_secs(5), idle: Duration::from_secs(30) }
    }
}

/// What the shell has to do.
#[derive(Debug)]
pub enum Output {
    Transmit(Bytes),
    Event(Event),
}

#[derive(Debug)]
pub enum Event {
    /// Answer with `accept` or `close`. What follows was sent before the answer.
    PublishRequested {
        app: String,
        key: StreamKey,
    },
    Announced(Announcement),
    Sample(Sample),
    /// The session is over. Once.
    Closed(CloseReason),
}

pub struct Session {
    state: State,
    deadlines: Deadlines,
    /// When `handle_timeout` is due.
    deadline: Option<Instant>,
    reader: chunk::Reader,
    writer: chunk::Writer,
    feed: Feed,
    app: String,
    dialect: Dialect,
    /// The message stream that the peer publishes on: statuses go there.
    stream_id: u32,
    received: u64,
    acknowledged: u64,
    window: u32,
    outgoing: Vec<u8>,
    events: VecDeque<Event>,
}

enum State {
    Handshake(Box<handshake::Server>),
    /// Waiting for `connect`.
    Fresh,
    /// Waiting for `publish`.
    Connected,
    /// Waiting for our own answer.
    Asked,
    Live,
    /// A farewell is on its way; input is thrown away.
    Closing,
    Finished,
}

impl Session {
    /// `seed` makes the handshake's bytes, which keep no secret.
    pub fn new(now: Instant, seed: u64, deadlines: Deadlines) -> Self {
        Self {
            state: State::Handshake(Box::new(handshake::Server::new(seed))),
            deadlines,
            deadline: Some(now + deadlines.handshake),
            reader: chunk::Reader::default(),
            writer: chunk::Writer::default(),
            feed: Feed::default(),
            app: String::new(),
            dialect: Dialect::Plain,
            stream_id: 0,
            received: 0,
            acknowledged: 0,
            window: WINDOW_BYTES,
            outgoing: Vec::new(),
            events: VecDeque::new(),
        }
    }

    pub fn handle_input(&mut self, now: Instant, bytes: &[u8]) {
        let mut input = bytes;
        self.received += bytes.len() as u64;
        if let State::Handshake(handshake) = &mut self.state {
            match handshake.read(&mut input, &mut self.outgoing) {
                Ok(false) => return,
                Ok(true) => {
                    self.state = State::Fresh;
                    self.deadline = Some(now + self.deadlines.publish);
                }
                Err(error) => return self.close(now, error.into()),
            }
        }
        while !self.is_over() {
            match self.reader.read(&mut input) {
                Ok(Some(message)) => self.handle_message(now, &message),
                Ok(None) => break,
                Err(violation) => return self.close(now, violation.into()),
            }
        }
        self.acknowledge();
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.deadline = None;
        let Deadlines { handshake, publish, idle } = self.deadlines;
        match self.state {
            State::Handshake(_) => self.close(now, CloseReason::HandshakeTimeout(handshake.as_secs())),
            State::Fresh | State::Connected => self.close(now, CloseReason::PublishTimeout(publish.as_secs())),
            State::Live => self.close(now, CloseReason::Idle(idle.as_secs())),
            State::Closing => self.state = State::Finished,
            State::Asked | State::Finished => {}
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        if !self.outgoing.is_empty() {
            return Some(Output::Transmit(std::mem::take(&mut self.outgoing).into()));
        }
        self.events.pop_front().map(Output::Event)
    }

    /// The publisher may go on.
    pub fn accept(&mut self, now: Instant) {
        if !matches!(self.state, State::Asked) {
            return;
        }
        self.state = State::Live;
        self.deadline = Some(now + self.deadlines.idle);
        self.send(&message::user_control(message::STREAM_BEGIN, self.stream_id));
        self.status(Status::info("NetStream.Publish.Start", "Publishing: the stream is on its way to viewers."));
    }

    /// Ends the session, telling the peer why where the protocol can. Only the first reason counts.
    pub fn close(&mut self, now: Instant, reason: CloseReason) {
        if self.is_over() {
            return;
        }
        let words = reason.to_string();
        let farewell = match (&self.state, farewell(&reason, &words)) {
            (State::Handshake(_), _) | (_, None) => None,
            (_, farewell) => farewell,
        };
        match farewell {
            Some(status) => {
                if matches!((&reason, self.dialect), (CloseReason::Drain, Dialect::Enhanced { reconnects: true })) {
                    self.request_reconnect();
                }
                self.status(status);
                self.state = State::Closing;
                self.deadline = Some(now + LINGER);
            }
            None => {
                self.state = State::Finished;
                self.deadline = None;
            }
        }
        self.events.push_back(Event::Closed(reason));
    }

    /// Nothing will be sent or read any more: hang up.
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished)
    }

    /// `Event::Closed` was said, or is about to be.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Closing | State::Finished)
    }

    pub fn repairs(&self) -> Repairs {
        self.feed.repairs()
    }

    pub fn drops(&self) -> Drops {
        self.feed.drops()
    }

    /// Memory that unfinished messages hold.
    pub fn partial_capacity(&self) -> usize {
        self.reader.partial_capacity()
    }

    fn handle_message(&mut self, now: Instant, message: &Message) {
        match message.kind {
            message::WINDOW_ACK_SIZE => {
                if let Some(window) = message::control_value(&message.payload) {
                    self.window = window.max(WINDOW_BYTES_MIN);
                }
            }
            message::USER_CONTROL => self.user_control(&message.payload),
            message::COMMAND_AMF0 => self.handle_command(now, message, &message.payload),
            message::COMMAND_AMF3 => self.handle_command(now, message, amf0_of(&message.payload)),
            message::DATA_AMF0 => self.handle_data(&message.payload),
            message::DATA_AMF3 => self.handle_data(amf0_of(&message.payload)),
            message::AUDIO | message::VIDEO => self.handle_media(now, message),
            message::AGGREGATE => {
                for (n, inner) in message::split_aggregate(message).enumerate() {
                    if n == AGGREGATE_MESSAGES_MAX {
                        self.feed.count_drop(Dropped::Malformed);
                        break;
                    }
                    match inner.kind {
                        message::AUDIO | message::VIDEO if !self.is_over() => self.handle_media(now, &inner),
                        message::DATA_AMF0 => self.handle_data(&inner.payload),
                        _ => {}
                    }
                }
            }
            // Acknowledgements, bandwidth wishes, shared objects: nothing depends on them.
            _ => {}
        }
    }

    fn user_control(&mut self, payload: &[u8]) {
        if let Some(&[a, b, rest @ ..]) = payload.first_chunk::<6>()
            && u16::from_be_bytes([a, b]) == message::PING_REQUEST
        {
            self.send(&message::user_control(message::PING_RESPONSE, u32::from_be_bytes(rest)));
        }
    }

    fn handle_media(&mut self, now: Instant, message: &Message) {
        if !self.is_publishing() {
            return self.feed.count_drop(Dropped::NotPublishing);
        }
        if matches!(self.state, State::Live) {
            self.deadline = Some(now + self.deadlines.idle);
        }
        let fed = match message.kind {
            message::VIDEO => self.feed.video(now, message),
            _ => self.feed.audio(now, message),
        };
        self.emit();
        if let Err(refused) = fed {
            self.close(now, CloseReason::Media(refused.to_string()));
        }
    }

    fn handle_data(&mut self, payload: &[u8]) {
        if self.is_publishing() {
            self.feed.metadata(payload);
            self.emit();
        }
    }

    fn is_publishing(&self) -> bool {
        matches!(self.state, State::Asked | State::Live)
    }

    fn emit(&mut self) {
        while let Some(fed) = self.feed.poll_output() {
            self.events.push_back(match fed {
                Fed::Sample(sample) => Event::Sample(sample),
                Fed::Announced(announcement) => Event::Announced(announcement),
            });
        }
    }

    fn handle_command(&mut self, now: Instant, message: &Message, payload: &[u8]) {
        let Call { command, transaction } = match command::read(payload) {
            Ok(call) => call,
            Err(error) => return self.close(now, error.into()),
        };
        let fresh = matches!(self.state, State::Fresh);
        match command {
            Command::Connect { app, dialect } if fresh => self.connect(transaction, &app, dialect),
            Command::Connect { .. } => self.fail(message, transaction, "this connection is connected already"),
            Command::Answer => {}
            Command::Play => self.close(now, CloseReason::Player),
            _ if fresh => self.fail(message, transaction, "connect first"),
            Command::CreateStream => self.reply(message, command::result(transaction, Value::Number(STREAM_ID))),
            Command::Courtesy => self.reply(message, command::result(transaction, Value::Undefined)),
            Command::FcPublish => {
                self.reply(message, command::result(transaction, Value::Undefined));
                self.reply(message, command::on_fc_publish());
            }
            Command::Publish { key } => self.publish(now, message, transaction, &key),
            Command::End if self.is_publishing() => self.close(now, CloseReason::Unpublished),
            Command::End => {}
            // Who gives no number expects no answer.
            Command::Unknown if transaction == 0.0 => {}
            Command::Unknown => self.fail(message, transaction, "this server does not know the command"),
        }
    }

    fn connect(&mut self, transaction: f64, app: &str, dialect: Dialect) {
        self.state = State::Connected;
        self.app = app.chars().take(NAME_BYTES_MAX).collect();
        self.dialect = dialect;
        self.send(&message::window_ack_size(WINDOW_BYTES));
        self.send(&message::set_peer_bandwidth(WINDOW_BYTES));
        self.writer.set_chunk_size(&mut self.outgoing, CHUNK_SIZE);
        self.send(&Message::command(0, command::connected(transaction, dialect)));
    }

    fn publish(&mut self, now: Instant, message: &Message, transaction: f64, key: &str) {
        if self.is_publishing() {
            return self.fail(message, transaction, "this connection publishes already");
        }
        self.stream_id = message.stream_id;
        if key.is_empty() {
            return self.close(now, CloseReason::Denied("the stream key is empty: enter it in the encoder's settings".into()));
        }
        if key.len() > NAME_BYTES_MAX {
            return self.close(now, CloseReason::Denied("the stream key is far too long to be one".into()));
        }
        self.state = State::Asked;
        self.deadline = None; // The answer is ours to give, and has a deadline there.
        self.reader.open_media();
        self.events.push_back(Event::PublishRequested { app: self.app.clone(), key: StreamKey::new(key) });
    }

    fn fail(&mut self, message: &Message, transaction: f64, words: &str) {
        self.reply(message, command::error(transaction, Status::error("NetConnection.Call.Failed", words)));
    }

    fn reply(&mut self, to: &Message, payload: Vec<u8>) {
        self.send(&Message::command(to.stream_id, payload));
    }

    fn status(&mut self, status: Status<'_>) {
        self.send(&Message::command(self.stream_id, command::on_status(status)));
    }

    /// To the same address, since no other is named (veovera v2, "Reconnect Request"). It is the connection's to be told.
    fn request_reconnect(&mut self) {
        let status =
            Status::info("NetConnection.Connect.ReconnectRequest", "The server is restarting: connect again in a moment.");
        self.send(&Message::command(0, command::on_status(status)));
    }

    fn send(&mut self, message: &Message) {
        self.writer.write(&mut self.outgoing, message);
    }

    /// Every window, the peer hears how much has come (modulo 2^32, 5.4.3).
    fn acknowledge(&mut self) {
        if !self.is_over() && self.received - self.acknowledged >= u64::from(self.window) {
            self.acknowledged = self.received;
            self.send(&message::acknowledgement(self.received as u32));
        }
    }
}

/// AMF3 messages open with a byte that says that AMF0 follows.
fn amf0_of(payload: &[u8]) -> &[u8] {
    payload.strip_prefix(&[0]).unwrap_or(payload)
}

/// What the peer is told, and how; `None` when nobody is there to be told.
fn farewell<'a>(reason: &CloseReason, words: &'a str) -> Option<Status<'a>> {
    Some(match reason {
        CloseReason::Unpublished => Status::info("NetStream.Unpublish.Success", words),
        CloseReason::Denied(_) | CloseReason::Refused(_) => Status::error("NetStream.Publish.BadName", words),
        CloseReason::TakenOver => Status::error("NetStream.Publish.BadName", words),
        CloseReason::Media(_) => Status::error("NetStream.Publish.Rejected", words),
        CloseReason::Player => Status::error("NetStream.Play.Failed", words),
        CloseReason::Drain => Status::info("NetConnection.Connect.Closed", words),
        CloseReason::Idle(_) | CloseReason::PublishTimeout(_) => Status::error("NetConnection.Connect.IdleTimeOut", words),
        CloseReason::Chunk(_) | CloseReason::Amf(_) => Status::error("NetConnection.Call.Failed", words),
        CloseReason::PeerClosed
        | CloseReason::Io(_)
        | CloseReason::WriteStalled(_)
        | CloseReason::HandshakeTimeout(_)
        | CloseReason::Handshake(_) => return None,
    })
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
