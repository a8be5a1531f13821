//! Answers to a directory that asks whether a name is this server's: by TLS on the port of HTTPS (RFC 8737), or by HTTP
//! (RFC 8555 8.3). There is something to find only while an order is under way.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context;
use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use instant_acme::KeyAuthorization;
use rustls::{
    crypto::CryptoProvider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};

use crate::http::problem;

/// What a directory offers, and nobody else, on the port of HTTPS.
pub const PROTOCOL: &[u8] = b"acme-tls/1";

/// The answers of the order under way: as many as it has names, which the configuration bounds.
#[derive(Clone, Debug, Default)]
pub struct Answers(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    /// By name, the certificate that shows what was asked for.
    tls: HashMap<String, Arc<CertifiedKey>>,
    /// By token.
    http: HashMap<String, String>,
}

impl Answers {
    pub fn by_tls(&self, name: &str, answer: &KeyAuthorization, provider: &CryptoProvider) -> anyhow::Result<()> {
        let key = certificate(name, answer.digest().as_ref(), provider).context("the certificate of a challenge")?;
        self.lock().tls.insert(name.to_ascii_lowercase(), Arc::new(key));
        Ok(())
    }

    pub fn by_http(&self, token: &str, answer: &KeyAuthorization) {
        self.lock().http.insert(token.to_owned(), answer.as_str().to_owned());
    }

    pub fn clear(&self) {
        *self.lock() = Open::default();
    }

    pub fn for_name(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.lock().tls.get(&name.to_ascii_lowercase()).cloned()
    }

    pub fn router(&self) -> Router {
        Router::new().route("/.well-known/acme-challenge/{token}", get(answer)).with_state(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // No code of ours panics while it holds the lock; the maps are whole either way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(State(answers): State<Answers>, Path(token): Path<String>) -> Response {
    let found = answers.lock().http.get(&token).cloned();
    match found {
        Some(text) => {
            let headers = [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "no-store")];
            (StatusCode::OK, headers, text).into_response()
        }
        None => problem::not_found().await,
    }
}

/// For the name alone, with the digest in the extension that RFC 8737 3 gives it.
fn certificate(name: &str, digest: &[u8], provider: &CryptoProvider) -> anyhow::Result<CertifiedKey> {
    let mut parameters = rcgen::CertificateParams::new([name.to_owned()])?;
    parameters.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(digest)];
    let key = rcgen::KeyPair::generate()?;
    let made = parameters.self_signed(&key)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // Not `from_der`, which would compare the two: it refuses a certificate with that extension.
    Ok(CertifiedKey::new(vec![made.der().clone()], provider.key_provider.load_private_key(key)?))
}
