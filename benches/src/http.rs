//! One keep-alive HTTP/1.1 connection: GET, whole bodies, redirects on the same host. Plain only.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

/// Longest wait for an answer: a blocking reload may be held for three target durations.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(18);
/// Largest body read: a second of 8K video.
const BODY_BYTES_MAX: usize = 64 << 20;
const HEADER_BYTES_MAX: u64 = 16 << 10;
const REDIRECTS_MAX: usize = 4;
/// For the answer's head and a playlist; bodies beyond are read straight into their own buffer.
const READ_BUFFER_BYTES: usize = 8 << 10;

/// `http://host:port/path`, apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Address {
    pub host: String,
    pub path: String,
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").ok_or("an address begins with http://")?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = if host.contains(':') { host.into() } else { format!("{host}:80") };
        Ok(Self { host, path: format!("/{path}") })
    }
}

/// A reference against the path it stood in; an absolute address loses its host.
pub fn resolve(base: &str, to: &str) -> String {
    if let Some((_, rest)) = to.split_once("://") {
        return rest.find('/').map_or("/".into(), |at| rest[at..].into());
    }
    if to.starts_with('/') {
        return to.into();
    }
    let file = base.split('?').next().unwrap_or(base);
    let mut folder: Vec<&str> = file.rsplit_once('/').map_or("", |(folder, _)| folder).split('/').collect();
    let mut to = to;
    while let Some(rest) = to.strip_prefix("../") {
        to = rest;
        folder.pop();
    }
    format!("{}/{to}", folder.join("/"))
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Decoded.
    pub body: Vec<u8>,
    /// Bytes of the body as they crossed the wire.
    pub wire_bytes: u64,
    /// Where it was found at last.
    pub path: String,
    /// When the first byte of the head had arrived.
    pub first_byte: Instant,
}

struct Head {
    status: u16,
    length: usize,
    chunked: bool,
    gzip: bool,
    close: bool,
    location: Option<String>,
}

pub struct Connection {
    host: String,
    accept_gzip: bool,
    stream: Option<BufReader<TcpStream>>,
    cookie: Option<String>,
}

impl Connection {
    pub fn new(host: &str, accept_gzip: bool) -> Self {
        Self { host: host.into(), accept_gzip, stream: None, cookie: None }
    }

    /// A GET that must end in 200. Redirects are followed, a cookie kept, as a browser does.
    pub async fn fetch(&mut self, path: &str) -> io::Result<Answer> {
        let mut path = path.to_owned();
        for _ in 0..REDIRECTS_MAX {
            let answered = timeout(ANSWER_WAIT_MAX, self.exchange(&path)).await;
            let answered = answered.unwrap_or_else(|_| Err(io::Error::other("no answer in time")));
            let (answer, location) = answered.inspect_err(|_| self.stream = None)?;
            match (answer.status, location) {
                (200, _) => return Ok(answer),
                (301 | 302 | 303 | 307 | 308, Some(to)) => path = resolve(&path, &to),
                (status, _) => return Err(io::Error::other(format!("status {status}"))),
            }
        }
        Err(io::Error::other("too many redirects"))
    }

    async fn exchange(&mut self, path: &str) -> io::Result<(Answer, Option<String>)> {
        self.send(path).await?;
        let Some(stream) = &mut self.stream else { return Err(io::Error::other("not connected")) };
        if stream.fill_buf().await?.is_empty() {
            return Err(io::Error::other("connection closed"));
        }
        let first_byte = Instant::now();
        let head = read_head(stream, &mut self.cookie).await?;
        let raw = match head.chunked {
            true => read_chunked(stream).await?,
            false => read_exactly(stream, head.length).await?,
        };
        if head.close {
            self.stream = None;
        }
        let wire_bytes = raw.len() as u64;
        let body = if head.gzip { inflate(&raw)? } else { raw };
        Ok((Answer { status: head.status, body, wire_bytes, path: path.into(), first_byte }, head.location))
    }

    async fn send(&mut self, path: &str) -> io::Result<()> {
        if self.stream.is_none() {
            let tcp = TcpStream::connect(&self.host).await?;
            tcp.set_nodelay(true)?;
            self.stream = Some(BufReader::with_capacity(READ_BUFFER_BYTES, tcp));
        }
        let encoding = if self.accept_gzip { "Accept-Encoding: gzip\r\n" } else { "" };
        let cookie = self.cookie.as_ref().map(|c| format!("Cookie: {c}\r\n")).unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: */*\r\n{encoding}{cookie}\r\n", self.host);
        match &mut self.stream {
            Some(stream) => stream.get_mut().write_all(request.as_bytes()).await,
            None => Ok(()),
        }
    }
}

async fn read_head(stream: &mut BufReader<TcpStream>, cookie: &mut Option<String>) -> io::Result<Head> {
    let mut stream = stream.take(HEADER_BYTES_MAX);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| io::Error::other("not HTTP"))?;
    let mut head = Head { status, length: 0, chunked: false, gzip: false, close: false, location: None };
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::Error::other("head cut off, or longer than 16 KiB"));
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(head) };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = value.parse().map_err(io::Error::other)?,
            "transfer-encoding" => head.chunked = value.eq_ignore_ascii_case("chunked"),
            "content-encoding" => head.gzip = value.eq_ignore_ascii_case("gzip"),
            "connection" => head.close = value.eq_ignore_ascii_case("close"),
            "location" => head.location = Some(value.to_owned()),
            "set-cookie" => *cookie = value.split(';').next().map(str::to_owned),
            _ => {}
        }
    }
}

async fn read_exactly(stream: &mut BufReader<TcpStream>, length: usize) -> io::Result<Vec<u8>> {
    if length > BODY_BYTES_MAX {
        return Err(io::Error::other("a body of more than 64 MiB"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

async fn read_chunked(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let (mut body, mut line) = (Vec::new(), String::new());
    loop {
        line.clear();
        (&mut *stream).take(HEADER_BYTES_MAX).read_line(&mut line).await?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let chunk = read_exactly(stream, size.min(BODY_BYTES_MAX + 1 - body.len().min(BODY_BYTES_MAX))).await?;
        body.extend(chunk);
        line.clear();
        (&mut *stream).take(HEADER_BYTES_MAX).read_line(&mut line).await?;
        match size {
            0 => return Ok(body),
            _ if body.len() > BODY_BYTES_MAX => return Err(io::Error::other("a body of more than 64 MiB")),
            _ => {}
        }
    }
}

fn inflate(raw: &[u8]) -> io::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(raw.len() * 6);
    flate2::read::GzDecoder::new(raw).take(BODY_BYTES_MAX as u64).read_to_end(&mut body)?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let check = |base, to, expected| assert_eq!(resolve(base, to), expected, "{to} in {base}");
        check("/live/demo/video.m3u8?a=b/c", "video/7/part-1.m4s", "/live/demo/video/7/part-1.m4s");
        check("/live/demo/video.m3u8", "/x", "/x");
        check("/live/demo/video/video.m3u8", "../audio.m3u8", "/live/demo/audio.m3u8");
        check("/live/demo/video.m3u8", "http://host/x?y", "/x?y");
    }

    #[test]
    fn addresses() {
        let address: Address = "http://127.0.0.1:8080/live/a.m3u8".parse().unwrap();
        assert_eq!((address.host.as_str(), address.path.as_str()), ("127.0.0.1:8080", "/live/a.m3u8"));
        assert!("https://host/".parse::<Address>().is_err());
    }
}
