//! One publishing connection: handshake, commands, then one write per message. A task reads what
//! the server says meanwhile, so that a refusal in mid-stream ends the publisher with its text.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use super::{
    Error, Target,
    amf0::{Command, Writer},
    chunk::{self, CHUNK_BYTES, Header, write_message},
};
use crate::flv::Kind;

/// Longest wait for each answer of the server, and for room in the socket. A server may hold a
/// second publisher for 1.5 s before it says no; ten seconds is beyond any patience of OBS.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the server's close at an orderly end.
const FAREWELL_WAIT_MAX: Duration = Duration::from_secs(1);
const HANDSHAKE_BYTES: usize = 1536;
/// Pings not answered yet. Beyond, they are dropped: a server sends one in seconds.
const NOTICES_MAX: usize = 8;

/// What the reading task tells the writing side.
enum Notice {
    Ping([u8; 4]),
    End(Error),
}

pub struct Connection {
    writer: OwnedWriteHalf,
    notices: mpsc::Receiver<Notice>,
    reading: JoinHandle<()>,
    message_stream: u32,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects and publishes; ready for media when it returns.
    pub async fn publish(target: &Target) -> Result<Self, Error> {
        let stream = within("connect", TcpStream::connect(&target.address)).await??;
        stream.set_nodelay(true)?;
        let (mut reader, mut writer) = stream.into_split();
        within("handshake", handshake(&mut reader, &mut writer)).await??;
        let mut dialogue = Dialogue { reader, writer, messages: chunk::Reader::default() };
        let message_stream = dialogue.open(target).await?;
        let (sender, notices) = mpsc::channel(NOTICES_MAX);
        let reading = tokio::spawn(listen(dialogue.reader, dialogue.messages, sender));
        Ok(Self { writer: dialogue.writer, notices, reading, message_stream, buffer: Vec::new() })
    }

    /// One media message, handed to the socket as a whole.
    pub async fn send(&mut self, kind: Kind, timestamp_ms: u32, body: &[u8]) -> Result<(), Error> {
        while let Ok(notice) = self.notices.try_recv() {
            self.handle_notice(notice)?;
        }
        let chunk_stream = if kind == Kind::Video { 6 } else { 4 };
        let message_type = kind.message_type();
        let header = Header { chunk_stream, message_type, message_stream: self.message_stream, timestamp_ms };
        write_message(&mut self.buffer, header, body, CHUNK_BYTES);
        self.flush().await
    }

    /// Until the server ends it. Meant to be raced against whatever else is awaited.
    pub async fn ended(&mut self) -> Error {
        loop {
            match self.notices.recv().await {
                None => return Error::Closed,
                Some(notice) => {
                    if let Err(error) = self.handle_notice(notice) {
                        return error;
                    }
                }
            }
        }
    }

    /// FCUnpublish, deleteStream and a clean close. Whatever the server says to that is no news.
    pub async fn close(mut self, target: &Target) {
        let number = f64::from(self.message_stream);
        command(&mut self.buffer, 0, Writer::command("FCUnpublish", 6.0).null().string(target.key()));
        command(&mut self.buffer, 0, Writer::command("deleteStream", 7.0).null().number(number));
        if self.flush().await.is_ok() && self.writer.shutdown().await.is_ok() {
            let _ = timeout(FAREWELL_WAIT_MAX, &mut self.reading).await;
        }
    }

    fn handle_notice(&mut self, notice: Notice) -> Result<(), Error> {
        match notice {
            Notice::Ping(time) => user_control(&mut self.buffer, 7, &time),
            Notice::End(error) => return Err(error),
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let written = within("no room in the socket", self.writer.write_all(&self.buffer)).await?;
        self.buffer.clear();
        match (written, self.notices.try_recv()) {
            // A server that refuses closes too: its words say more than a broken pipe.
            (_, Ok(Notice::End(error))) => Err(error),
            (Err(error), _) => Err(error.into()),
            (Ok(()), Ok(ping)) => self.handle_notice(ping),
            (Ok(()), Err(_)) => Ok(()),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn within<T>(what: &'static str, future: impl Future<Output = T>) -> Result<T, Error> {
    timeout(ANSWER_WAIT_MAX, future).await.map_err(|_| Error::Silent(ANSWER_WAIT_MAX.as_secs(), what))
}

/// The plain handshake: what ffmpeg's and OBS's servers accept from any client.
async fn handshake(reader: &mut OwnedReadHalf, writer: &mut OwnedWriteHalf) -> Result<(), Error> {
    let mut hello = vec![0u8; 1 + HANDSHAKE_BYTES];
    hello[0] = 3;
    // Any bytes do; a pattern, so that a server that mixes up its own and ours is noticed.
    hello.iter_mut().enumerate().skip(9).for_each(|(i, byte)| *byte = (i * 7) as u8);
    writer.write_all(&hello).await?;
    let mut answer = vec![0u8; 1 + 2 * HANDSHAKE_BYTES];
    reader.read_exact(&mut answer).await?;
    if answer[0] != 3 {
        return Err(Error::Protocol("its version is not 3"));
    }
    writer.write_all(&answer[1..=HANDSHAKE_BYTES]).await?;
    Ok(())
}

fn command(out: &mut Vec<u8>, message_stream: u32, command: Writer) {
    let chunk_stream = if message_stream == 0 { 3 } else { 8 };
    write_message(out, Header { chunk_stream, message_type: 20, message_stream, timestamp_ms: 0 }, &command.0, CHUNK_BYTES);
}

fn user_control(out: &mut Vec<u8>, event: u16, data: &[u8]) {
    let body = [&event.to_be_bytes()[..], data].concat();
    write_message(out, Header { chunk_stream: 2, message_type: 4, message_stream: 0, timestamp_ms: 0 }, &body, CHUNK_BYTES);
}

/// The exchange of commands up to the server's leave to publish.
struct Dialogue {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    messages: chunk::Reader,
}

impl Dialogue {
    async fn open(&mut self, target: &Target) -> Result<u32, Error> {
        let mut out = Vec::new();
        let size = (CHUNK_BYTES as u32).to_be_bytes();
        write_message(
            &mut out,
            Header { chunk_stream: 2, message_type: 1, message_stream: 0, timestamp_ms: 0 },
            &size,
            CHUNK_BYTES,
        );
        let fields =
            [("app", &*target.app), ("type", "nonprivate"), ("flashVer", "FMLE/3.0 (timed-publisher)"), ("tcUrl", &target.url)];
        command(&mut out, 0, Writer::command("connect", 1.0).object(&fields));
        self.writer.write_all(&out).await?;
        self.answer(1.0).await?;

        let mut out = Vec::new();
        command(&mut out, 0, Writer::command("releaseStream", 2.0).null().string(target.key()));
        command(&mut out, 0, Writer::command("FCPublish", 3.0).null().string(target.key()));
        command(&mut out, 0, Writer::command("createStream", 4.0).null());
        self.writer.write_all(&out).await?;
        let number = self.answer(4.0).await?.numbers.first().copied();
        let number = number.ok_or(Error::Protocol("createStream answered without a number"))? as u32;

        let mut out = Vec::new();
        command(&mut out, number, Writer::command("publish", 5.0).null().string(target.key()).string("live"));
        self.writer.write_all(&out).await?;
        within("publish", self.leave()).await??;
        Ok(number)
    }

    /// Until the server lets media come.
    async fn leave(&mut self) -> Result<(), Error> {
        loop {
            let command = self.command().await?;
            // Some servers say the same code in an answer to FCPublish, before they have decided.
            if command.name == "onStatus" && command.field("code") == "NetStream.Publish.Start" {
                return Ok(());
            }
        }
    }

    async fn answer(&mut self, transaction: f64) -> Result<Command, Error> {
        within("a command", async {
            loop {
                let command = self.command().await?;
                if command.name == "_result" && command.transaction == transaction {
                    return Ok(command);
                }
            }
        })
        .await?
    }

    /// The next command; a refusal is an error.
    async fn command(&mut self) -> Result<Command, Error> {
        loop {
            match next_message(&mut self.reader, &mut self.messages).await? {
                chunk::Message { message_type: 20, body } => {
                    let command = Command::parse(&body).ok_or(Error::Protocol("a command that cannot be read"))?;
                    return refusal(&command).map_or(Ok(command), Err);
                }
                chunk::Message { message_type: 4, body } => {
                    if let Some(time) = ping(&body) {
                        let mut out = Vec::new();
                        user_control(&mut out, 7, &time);
                        self.writer.write_all(&out).await?;
                    }
                }
                _ => {}
            }
        }
    }
}

/// `_error` of anything but the two courtesies that many servers do not know, or a status of level error.
fn refusal(command: &Command) -> Option<Error> {
    let courtesy = command.transaction == 2.0 || command.transaction == 3.0;
    let refused = command.field("level") == "error" || (command.name == "_error" && !courtesy);
    refused.then(|| Error::Refused { code: command.field("code").into(), description: command.field("description").into() })
}

fn ping(body: &[u8]) -> Option<[u8; 4]> {
    body.strip_prefix(&6u16.to_be_bytes())?.try_into().ok()
}

async fn next_message(reader: &mut OwnedReadHalf, messages: &mut chunk::Reader) -> Result<chunk::Message, Error> {
    let mut bytes = [0; 4096];
    loop {
        if let Some(message) = messages.next_message()? {
            return Ok(message);
        }
        match reader.read(&mut bytes).await? {
            0 => return Err(Error::Closed),
            n => messages.push(&bytes[..n]),
        }
    }
}

/// Reads until the server ends it. Acknowledgements are not needed from a side that receives so little.
async fn listen(mut reader: OwnedReadHalf, mut messages: chunk::Reader, notices: mpsc::Sender<Notice>) {
    let error = loop {
        match next_message(&mut reader, &mut messages).await {
            Err(error) => break error,
            Ok(chunk::Message { message_type: 4, body }) => {
                if let Some(time) = ping(&body) {
                    let _ = notices.try_send(Notice::Ping(time));
                }
            }
            Ok(chunk::Message { message_type: 20, body }) => {
                if let Some(error) = Command::parse(&body).as_ref().and_then(ending) {
                    break error;
                }
            }
            Ok(_) => {}
        }
    };
    let _ = notices.send(Notice::End(error)).await;
}

/// A refusal, or the server's own orderly end (a drain says it by a status).
fn ending(command: &Command) -> Option<Error> {
    let code = command.field("code");
    let over = command.name == "onStatus" && matches!(code, "NetStream.Unpublish.Success" | "NetConnection.Connect.Closed");
    refusal(command)
        .or_else(|| over.then(|| Error::Refused { code: code.into(), description: command.field("description").into() }))
}
