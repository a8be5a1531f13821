//! HTTPS to a directory: one connection a request, since a renewal makes a dozen in two months.

use std::{
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use axum::body::{self, Body, Bytes};
use hyper::{
    Request, Response, Uri,
    client::conn::http1,
    header::{HOST, HeaderValue, RETRY_AFTER},
};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// From the question for an address to the last byte: a directory that checks challenges answers at once, and is polled.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// A chain of certificates has some kilobytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;

#[derive(Clone)]
pub struct Web {
    tls: TlsConnector,
    /// How long the last refusal bade us to wait (RFC 8555 6.6), which the crate does not tell.
    bidden: Arc<Mutex<Option<Duration>>>,
}

impl Web {
    /// Trusts the certificates in the file, or what this machine trusts.
    pub fn new(root: Option<&Path>, provider: Arc<CryptoProvider>) -> anyhow::Result<Self> {
        let roots = match root {
            Some(file) => from_file(file).with_context(|| format!("in {} (tls.acme_root)", file.display()))?,
            None => of_this_machine()?,
        };
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(config).into(), bidden: Arc::default() })
    }

    /// What the last refusal bade, once.
    pub fn bidden(&self) -> Option<Duration> {
        self.bidden.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn fetch(&self, mut request: Request<BodyWrapper<Bytes>>) -> anyhow::Result<Response<Body>> {
        let address = request.uri().clone();
        let host = address.host().context("its address has no host")?.trim_matches(['[', ']']).to_owned();
        if address.scheme_str() != Some("https") {
            bail!("{address} is not https");
        }
        let port = address.port_u16().unwrap_or(443);
        let stream = TcpStream::connect((host.as_str(), port)).await.with_context(|| format!("to {host}:{port}"))?;
        let stream = self.tls.connect(ServerName::try_from(host.clone())?, stream).await;
        let stream = stream.with_context(|| format!("TLS with {host}"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let authority = address.authority().context("its address has no host")?;
        request.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str())?);
        *request.uri_mut() = address.path_and_query().map_or(Ok(Uri::from_static("/")), |path| path.as_str().parse())?;
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = body::to_bytes(Body::new(body), ANSWER_BYTES_MAX).await.context("its answer")?;
        connection.abort();
        Ok(Response::from_parts(parts, Body::from(body)))
    }

    fn note(&self, response: &Response<Body>) {
        let refused = response.status().is_client_error() || response.status().is_server_error();
        if let Some(told) = response.headers().get(RETRY_AFTER).filter(|_| refused).and_then(|told| told.to_str().ok()) {
            *self.bidden.lock().unwrap_or_else(PoisonError::into_inner) = retry_after(told, SystemTime::now());
        }
    }
}

impl HttpClient for Web {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let web = self.clone();
        Box::pin(async move {
            let fetched = tokio::time::timeout(REQUEST_TIME, web.fetch(request)).await;
            let response = match fetched {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => return Err(Error::Other(format!("{error:#}").into())),
                Err(_) => return Err(Error::Other(format!("no answer within {REQUEST_TIME:?}").into())),
            };
            web.note(&response);
            Ok(BytesResponse::from(response))
        })
    }
}

/// Seconds, or a date (RFC 9110 10.2.3).
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text.trim()).ok()?.duration_since(now).ok()
}

fn from_file(file: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file)? {
        roots.add(certificate?)?;
    }
    if roots.is_empty() {
        bail!("there is no certificate");
    }
    Ok(roots)
}

fn of_this_machine() -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|e| format!(": {e}")).unwrap_or_default();
        bail!("this machine trusts no certificate authority{why}. Install the package ca-certificates, or set tls.acme_root");
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_says_when_to_come_back() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_700);
        let check = |text, seconds: Option<u64>| assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        check("120", Some(120));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(77));
        check("Sun, 06 Nov 1984 08:49:37 GMT", None);
        check("soon", None);
    }
}
