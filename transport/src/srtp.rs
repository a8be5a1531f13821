//! SRTP of one session (RFC 3711, RFC 7714): packets sealed straight into the datagram they leave
//! in, and opened as they come.
//!
//! AES-GCM is sealed in place here, since that is the larger half of what a viewer costs; every
//! other profile, all of RTCP and all that comes in is `rtc-srtp`'s work.

use std::{collections::HashSet, sync::Arc};

use bytes::BytesMut;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rtc_crypto::{BlockCipherAlgorithm, RTCCrypto, RTCCryptoProvider};
use rtc_shared::error::Error as RtcError;
use rtc_srtp::{
    config,
    context::Context,
    option::{srtcp_replay_protection, srtp_replay_protection},
    protection_profile::ProtectionProfile,
};

/// Labels of the key derivation (RFC 3711 4.3.1).
const LABEL_ENCRYPTION: u8 = 0;
const LABEL_SALT: u8 = 2;
const GCM_SALT_BYTES: usize = 12;
const GCM_TAG_BYTES: usize = 16;
/// SSRCs of one peer: as many as a publisher may have layers with their retransmissions, and changes.
const KNOWN_MAX: usize = 64;
/// Forged packets until the strangers' context is made anew.
const FAILURES_MAX: u32 = 64;
/// Packets that may be late (RFC 3711 3.3.2): seconds of video.
const REPLAY_WINDOW: usize = 1024;
const REPLAY_WINDOW_RTCP: usize = 128;

#[derive(Debug, thiserror::Error)]
#[error("SRTP: a packet could not be sealed: {0}")]
pub(crate) struct SealError(String);

/// What seals our packets.
pub(crate) struct Sealer {
    rtp: Rtp,
    rtcp: Context,
    overhead: usize,
    plain: Vec<u8>,
}

enum Rtp {
    Gcm { key: Box<LessSafeKey>, salt: [u8; GCM_SALT_BYTES] },
    Other(Box<Context>),
}

/// What opens the peer's. A context keeps something for each SSRC that it meets, even of packets that are forged, so
/// strangers are met by a context of their own, which is made anew now and then.
pub(crate) struct Opener {
    known: HashSet<u32>,
    trusted: Context,
    stranger: Context,
    failures: u32,
    keys: config::Config,
    provider: Arc<dyn RTCCryptoProvider>,
}

/// From what the handshake agreed on.
pub(crate) fn contexts(keys: config::Config, provider: Arc<dyn RTCCryptoProvider>) -> Result<(Sealer, Opener), RtcError> {
    let crypto = provider.crypto();
    let local = || Context::new(&keys.keys.local_master_key, &keys.keys.local_master_salt, keys.profile, None, None, crypto);
    let rtp = match keys.profile {
        ProtectionProfile::AeadAes128Gcm | ProtectionProfile::AeadAes256Gcm => gcm(&keys, crypto)?,
        _ => Rtp::Other(Box::new(local()?)),
    };
    let overhead = keys.profile.rtp_auth_tag_len() + keys.profile.aead_auth_tag_len();
    let sealer = Sealer { rtp, rtcp: local()?, overhead, plain: Vec::new() };
    let (trusted, stranger) = (remote(&keys, crypto)?, remote(&keys, crypto)?);
    Ok((sealer, Opener { known: HashSet::new(), trusted, stranger, failures: 0, keys, provider }))
}

fn remote(keys: &config::Config, crypto: &dyn RTCCrypto) -> Result<Context, RtcError> {
    let (rtp, rtcp) = (srtp_replay_protection(REPLAY_WINDOW), srtcp_replay_protection(REPLAY_WINDOW_RTCP));
    Context::new(&keys.keys.remote_master_key, &keys.keys.remote_master_salt, keys.profile, Some(rtp), Some(rtcp), crypto)
}

impl Sealer {
    /// Bytes a packet grows by.
    pub(crate) fn overhead(&self) -> usize {
        self.overhead
    }

    /// Appends the packet of `header` and the pieces of its payload to `out`, sealed. `rollover`
    /// counts how often the sequence number of this SSRC has wrapped.
    pub(crate) fn seal_rtp(
        &mut self,
        header: &[u8],
        rollover: u32,
        payload: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        match &mut self.rtp {
            Rtp::Gcm { key, salt } => {
                let at = out.len();
                out.extend_from_slice(header);
                payload.iter().for_each(|piece| out.extend_from_slice(piece));
                let (clear, secret) = out[at..].split_at_mut(header.len());
                let nonce = Nonce::assume_unique_for_key(iv(salt, clear, rollover));
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&*clear), secret);
                let tag = tag.map_err(|_| SealError("too long".into()))?;
                out.extend_from_slice(tag.as_ref());
            }
            Rtp::Other(context) => {
                self.plain.clear();
                self.plain.extend_from_slice(header);
                payload.iter().for_each(|piece| self.plain.extend_from_slice(piece));
                out.extend_from_slice(&context.encrypt_rtp(&self.plain).map_err(|e| SealError(e.to_string()))?);
            }
        }
        Ok(())
    }

    pub(crate) fn seal_rtcp(&mut self, packet: &[u8]) -> Result<Vec<u8>, SealError> {
        self.rtcp.encrypt_rtcp(packet).map(|sealed| sealed.to_vec()).map_err(|e| SealError(e.to_string()))
    }
}

impl Opener {
    pub(crate) fn open_rtp(&mut self, packet: &[u8], header: &rtc_rtp::Header) -> Result<BytesMut, RtcError> {
        self.open(header.ssrc, |context| context.decrypt_rtp_with_header(packet, header))
    }

    pub(crate) fn open_rtcp(&mut self, packet: &[u8]) -> Result<BytesMut, RtcError> {
        let ssrc = packet.get(4..8).and_then(|ssrc| ssrc.try_into().ok()).map(u32::from_be_bytes);
        self.open(ssrc.ok_or(RtcError::ErrTooShortRtcp)?, |context| context.decrypt_rtcp(packet))
    }

    fn open(&mut self, ssrc: u32, open: impl Fn(&mut Context) -> Result<BytesMut, RtcError>) -> Result<BytesMut, RtcError> {
        if self.known.contains(&ssrc) {
            return open(&mut self.trusted);
        }
        let met = open(&mut self.stranger);
        if met.is_ok() && self.known.len() < KNOWN_MAX {
            self.known.insert(ssrc);
            return open(&mut self.trusted);
        }
        self.failures += 1;
        if self.failures >= FAILURES_MAX {
            self.failures = 0;
            self.stranger = remote(&self.keys, self.provider.crypto())?;
        }
        met
    }
}

fn gcm(keys: &config::Config, crypto: &dyn RTCCrypto) -> Result<Rtp, RtcError> {
    let (algorithm, block) = match keys.profile {
        ProtectionProfile::AeadAes256Gcm => (&AES_256_GCM, BlockCipherAlgorithm::Aes256),
        _ => (&AES_128_GCM, BlockCipherAlgorithm::Aes128),
    };
    let (master, salt) = (&keys.keys.local_master_key, &keys.keys.local_master_salt);
    let session = derive(crypto, block, LABEL_ENCRYPTION, master, salt, algorithm.key_len())?;
    let session_salt = derive(crypto, block, LABEL_SALT, master, salt, GCM_SALT_BYTES)?;
    let key = UnboundKey::new(algorithm, &session).map_err(|_| RtcError::Other("an SRTP key of the wrong length".into()))?;
    let salt = session_salt.try_into().map_err(|_| RtcError::Other("an SRTP salt of the wrong length".into()))?;
    debug_assert_eq!(keys.profile.aead_auth_tag_len(), GCM_TAG_BYTES);
    Ok(Rtp::Gcm { key: Box::new(LessSafeKey::new(key)), salt })
}

/// AES in counter mode over label and salt (RFC 3711 4.3.3, RFC 6188 for 256 bits).
fn derive(
    crypto: &dyn RTCCrypto,
    block: BlockCipherAlgorithm,
    label: u8,
    key: &[u8],
    salt: &[u8],
    length: usize,
) -> Result<Vec<u8>, RtcError> {
    let mut input = [0_u8; 16];
    input[..salt.len().min(14)].copy_from_slice(&salt[..salt.len().min(14)]);
    input[7] ^= label;
    let mut out = Vec::with_capacity(length + 16);
    for counter in 0_u16.. {
        if out.len() >= length {
            break;
        }
        let mut piece = input;
        piece[14..].copy_from_slice(&counter.to_be_bytes());
        crypto.block_encrypt(block, key, &mut piece).map_err(|e| RtcError::Other(e.to_string()))?;
        out.extend_from_slice(&piece);
    }
    out.truncate(length);
    Ok(out)
}

/// RFC 7714 8.1: two zero bytes, SSRC, rollover counter, sequence number, under the salt.
fn iv(salt: &[u8; GCM_SALT_BYTES], header: &[u8], rollover: u32) -> [u8; GCM_SALT_BYTES] {
    let mut iv = [0; GCM_SALT_BYTES];
    iv[2..6].copy_from_slice(&header[8..12]);
    iv[6..10].copy_from_slice(&rollover.to_be_bytes());
    iv[10..].copy_from_slice(&header[2..4]);
    iv.iter_mut().zip(salt).for_each(|(byte, salt)| *byte ^= salt);
    iv
}

#[cfg(test)]
pub(crate) mod tests {
    use rtc_shared::marshal::Unmarshal;

    use super::*;

    /// Both ends of one agreement.
    pub(crate) fn pair(profile: ProtectionProfile) -> [(Sealer, Opener); 2] {
        let provider = rtc_crypto::default_provider().unwrap();
        [false, true].map(|client| {
            let mut keys = config::Config { profile, ..Default::default() };
            let material: Vec<u8> = (0..keys.keying_material_len()).map(|n| (n * 7 + 3) as u8).collect();
            keys.set_session_keys_from_keying_material(&material, client).unwrap();
            contexts(keys, Arc::clone(&provider)).unwrap()
        })
    }

    #[test]
    fn what_is_sealed_here_is_opened_by_another_implementation() {
        for profile in
            [ProtectionProfile::AeadAes128Gcm, ProtectionProfile::AeadAes256Gcm, ProtectionProfile::Aes128CmHmacSha1_80]
        {
            let [(mut sealer, _), (_, mut opener)] = pair(profile);
            // Across a wrap of the sequence number.
            for number in 65_500_u32..65_600 {
                let mut header = [0x80, 96, 0, 0, 1, 2, 3, 4, 0, 0, 0x11, 0x11];
                header[2..4].copy_from_slice(&(number as u16).to_be_bytes());
                let mut out = Vec::new();
                sealer.seal_rtp(&header, number >> 16, &[b"two", b" pieces"], &mut out).unwrap();
                assert_eq!(out.len(), header.len() + 10 + sealer.overhead(), "{profile:?}");
                let parsed = rtc_rtp::Header::unmarshal(&mut &out[..]).unwrap();
                let opened = opener.open_rtp(&out, &parsed).unwrap();
                assert_eq!(&opened[header.len()..], b"two pieces", "{profile:?} {number}");
            }
            let report = [0x81, 201, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0];
            let sealed = sealer.seal_rtcp(&report).unwrap();
            assert_eq!(&opener.open_rtcp(&sealed).unwrap()[..], &report);
            let mut broken = sealed.clone();
            broken[9] ^= 1;
            assert!(opener.open_rtcp(&broken).is_err());
        }
    }
}
