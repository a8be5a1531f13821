//! A small blocking HTTP/1.1 client that sends exactly the bytes it is told to.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longest wait for bytes of an answer: longer than any request is held.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the answer is JSON")
    }
}

/// One connection that stays open between requests.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server accepts");
        stream.set_read_timeout(Some(READ_TIMEOUT)).expect("a socket takes a timeout");
        Self(BufReader::new(stream))
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("the server takes bytes");
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, &[])
    }

    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes());
        self.response(method)
    }

    pub fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let host = self.0.get_ref().peer_addr().expect("it is connected");
        let length = body.len();
        self.send(format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: {length}\r\n\r\n{body}").as_bytes());
        self.response("POST")
    }

    /// Reads the answer to a request with this method.
    pub fn response(&mut self, method: &str) -> Response {
        self.try_response(method).expect("the server answers before it closes")
    }

    /// `None` when the server has closed instead.
    pub fn try_response(&mut self, method: &str) -> Option<Response> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("an answer begins with its status");
        let mut headers = Vec::new();
        while let Some(line) = self.line().filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').expect("a header has a colon");
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: Vec::new() };
        if method != "HEAD" && status != 304 && status != 204 && status >= 200 {
            response.body = self.body(&response);
        }
        Some(response)
    }

    /// Whether the server closes without sending another byte.
    pub fn is_closed_clean(&mut self) -> bool {
        matches!(self.0.fill_buf(), Ok([]))
    }

    fn body(&mut self, response: &Response) -> Vec<u8> {
        let mut body = Vec::new();
        if response.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
            loop {
                let line = self.line().expect("a chunk has its size");
                let size =
                    usize::from_str_radix(line.split(';').next().unwrap_or(""), 16).expect("a chunk's size is hexadecimal");
                let mut chunk = vec![0; size];
                self.0.read_exact(&mut chunk).expect("a chunk is whole");
                self.line();
                if size == 0 {
                    return body;
                }
                body.append(&mut chunk);
            }
        }
        match response.header("content-length").map(|length| length.parse().expect("a length is a number")) {
            Some(length) => {
                body.resize(length, 0);
                self.0.read_exact(&mut body).expect("a body is whole");
            }
            None => {
                self.0.read_to_end(&mut body).expect("a body ends with its connection");
            }
        }
        body
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(1..) => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }
}

/// One request on its own connection.
pub fn get(address: SocketAddr, path: &str) -> Response {
    Connection::open(address).get(path)
}

pub fn request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    Connection::open(address).request(method, path, headers)
}
