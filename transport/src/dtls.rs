//! DTLS of one session (RFC 5764, RFC 8842): a handshake whose only fruit is the SRTP keys.
//!
//! The certificate is made once a process; its hash goes into every answer, and the peer's
//! certificate must have the hash that its offer named.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::BytesMut;
use ring::digest;
use rtc_crypto::RTCCryptoProvider;
use rtc_dtls::{
    config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig},
    crypto::Certificate,
    endpoint::{Endpoint, EndpointEvent},
    extension::extension_use_srtp::SrtpProtectionProfile,
};
use rtc_shared::{TransportProtocol, error::Error as RtcError};
use rtc_srtp::{config as srtp, protection_profile::ProtectionProfile};

use crate::sdp::{Fingerprint, HashAlgorithm};

/// The endpoint tells associations apart by address; ours has one, whose address may change.
const PEER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9));
/// AES-GCM first: a third of the cost of AES-CM with SHA-1 (RFC 7714).
const PROFILES: [SrtpProtectionProfile; 3] = [
    SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
    SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
    SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
];
/// Retransmission of a flight: live media cannot wait the second that RFC 6347 4.2.4.1 advises. Seven times, without
/// back-off, so that round trips of two seconds still connect.
const FLIGHT_INTERVAL: Duration = Duration::from_millis(300);
/// Datagrams of a handshake fit any path.
const MTU: usize = 1200;
/// Records of a handshake: about ten, with a large certificate in fragments some dozens, under loss a few hundred. More
/// are an attack on the list of fragments, which is searched for each.
const RECORDS_MAX: u32 = 512;
const RECORD_HEADER_BYTES: usize = 13;
/// Content type of an alert, close_notify among them: it ends sessions however many records there were.
const ALERT: u8 = 21;

/// Who we are: one certificate for every session of the process.
pub(crate) struct Identity {
    provider: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    pub(crate) fingerprint: Fingerprint,
}

impl Identity {
    pub(crate) fn generate() -> Result<Self, RtcError> {
        let provider = rtc_crypto::default_provider().map_err(|e| RtcError::Other(e.to_string()))?;
        let certificate = Certificate::generate_self_signed(vec!["codecast".into()], provider.crypto())?;
        let der = certificate.certificate.first().ok_or_else(|| RtcError::Other("no certificate was made".into()))?;
        let hash = digest::digest(&digest::SHA256, der.as_ref());
        let hash: [u8; 32] = hash.as_ref().try_into().expect("SHA-256 has 32 bytes");
        Ok(Self { provider, certificate, fingerprint: Fingerprint::sha256(hash) })
    }

    pub(crate) fn provider(&self) -> &Arc<dyn RTCCryptoProvider> {
        &self.provider
    }

    fn config(&self, client: bool, remote: Fingerprint, refused: Arc<AtomicBool>) -> Result<HandshakeConfig, RtcError> {
        ConfigBuilder::default()
            .with_crypto_provider(Arc::clone(&self.provider))
            .with_certificates(vec![self.certificate.clone()])
            .with_srtp_protection_profiles(PROFILES.to_vec())
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            // No authority signs these certificates: their hash in the offer does (RFC 8122).
            .with_insecure_skip_verify(true)
            .with_extended_master_secret(ExtendedMasterSecretType::Request)
            .with_flight_interval(FLIGHT_INTERVAL)
            .with_mtu(MTU)
            .with_verify_peer_certificate(Some(Arc::new(move |certificates: &[Vec<u8>], _| {
                let matches = certificates.first().is_some_and(|certificate| has_hash(certificate, &remote));
                refused.store(!matches, Ordering::Relaxed);
                if matches { Ok(()) } else { Err(RtcError::ErrNoMatchingCertificateFingerprint) }
            })))
            .build(client, None)
    }
}

fn has_hash(certificate: &[u8], fingerprint: &Fingerprint) -> bool {
    let algorithm = match fingerprint.algorithm() {
        HashAlgorithm::Sha256 => &digest::SHA256,
        HashAlgorithm::Sha384 => &digest::SHA384,
        HashAlgorithm::Sha512 => &digest::SHA512,
    };
    digest::digest(algorithm, certificate).as_ref() == fingerprint.value()
}

/// How many records are in a datagram (RFC 6347 4.1).
fn records(mut datagram: &[u8]) -> u32 {
    let mut count = 0;
    while let Some(header) = datagram.first_chunk::<RECORD_HEADER_BYTES>() {
        count += 1;
        let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
        datagram = datagram.get(RECORD_HEADER_BYTES + length..).unwrap_or_default();
    }
    count
}

pub(crate) struct Handshake {
    endpoint: Endpoint,
    /// Until we, as client, have begun.
    client: Option<Arc<HandshakeConfig>>,
    begun: bool,
    records: u32,
    done: bool,
    /// Set by the check of the peer's certificate, which runs inside the library.
    refused: Arc<AtomicBool>,
}

/// What a datagram brought.
pub(crate) enum Progress {
    Nothing,
    /// The keys of both directions.
    Done(Box<srtp::Config>),
    /// close_notify.
    ClosedByPeer,
}

impl Handshake {
    pub(crate) fn new(identity: &Identity, client: bool, remote: Fingerprint) -> Result<Self, RtcError> {
        let refused = Arc::new(AtomicBool::new(false));
        let config = Arc::new(identity.config(client, remote, Arc::clone(&refused))?);
        let server = (!client).then(|| Arc::clone(&config));
        Ok(Self {
            endpoint: Endpoint::new(PEER, TransportProtocol::UDP, server),
            client: client.then_some(config),
            begun: !client,
            records: 0,
            done: false,
            refused,
        })
    }

    /// A path is there: as client, say hello. Not before, or it is lost and a second with it.
    pub(crate) fn begin(&mut self, now: Instant) -> Result<(), RtcError> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        let Some(config) = self.client.take() else { return Ok(()) };
        self.endpoint.connect(now, PEER, config, None)
    }

    pub(crate) fn handle(&mut self, now: Instant, datagram: &[u8]) -> Result<Progress, RtcError> {
        self.records = self.records.saturating_add(records(datagram));
        let close = self.done && datagram.first() == Some(&ALERT);
        if (self.records > RECORDS_MAX && !close) || !self.begun {
            return Ok(Progress::Nothing);
        }
        let mut progress = Progress::Nothing;
        for event in self.endpoint.read(now, PEER, None, BytesMut::from(datagram))? {
            match event {
                EndpointEvent::HandshakeComplete => {
                    self.done = true;
                    progress = Progress::Done(Box::new(self.keys()?));
                }
                EndpointEvent::PeerClosed => progress = Progress::ClosedByPeer,
                _ => {} // No data channels.
            }
        }
        Ok(progress)
    }

    /// The peer's certificate is not the one that its offer named.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<BytesMut> {
        self.endpoint.poll_transmit().map(|transmit| transmit.message)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.endpoint.poll_timeout(&PEER)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), RtcError> {
        if self.poll_timeout().is_some() { self.endpoint.handle_timeout(PEER, now) } else { Ok(()) }
    }

    pub(crate) fn close(&mut self, now: Instant) {
        self.endpoint.stop(now, PEER);
    }

    fn keys(&self) -> Result<srtp::Config, RtcError> {
        let state = self.endpoint.get_connection_state(PEER).ok_or_else(|| RtcError::Other("no DTLS state".into()))?;
        let profile = match state.srtp_protection_profile() {
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => ProtectionProfile::AeadAes128Gcm,
            SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm => ProtectionProfile::AeadAes256Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
            _ => return Err(RtcError::Other("no SRTP protection profile in common".into())),
        };
        let mut keys = srtp::Config { profile, ..Default::default() };
        let material = state.export_keying_material(srtp::LABEL_EXTRACTOR_DTLS_SRTP, &[], keys.keying_material_len())?;
        keys.set_session_keys_from_keying_material(material.as_ref(), state.is_client())?;
        Ok(keys)
    }
}
