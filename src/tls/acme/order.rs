//! One certificate, from the account to the chain: the conversation of RFC 8555 7.1, by `instant-acme`.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rustls::{pki_types::CertificateDer, sign::CertifiedKey};
use tracing::{error, info};

use super::{Acme, plan, store, told::Trouble};
use crate::{config::AcmeChallenge, tls::leaf::Leaf, tls::pair};

/// A whole order. Directories check challenges within seconds; the limit is for those that do not answer.
const ORDER_TIME: Duration = Duration::from_secs(600);
/// How an order is asked after, where the directory does not say: at 0.25, 0.6, 1.2 s, and so on.
const POLL: RetryPolicy = RetryPolicy::new().backoff(1.5).timeout(Duration::from_secs(120));

type Window = [SystemTime; 2];

impl Acme {
    /// Asks for a certificate, and keeps it.
    pub(super) async fn renew(&self, replaced: Option<&Leaf>) -> Result<CertifiedKey, Trouble> {
        // What an earlier question was told is no answer to this one.
        self.web.bidden();
        let ordered = tokio::time::timeout(ORDER_TIME, self.order(replaced)).await;
        self.answers.clear();
        let (chain, key) =
            ordered.unwrap_or_else(|_| Err(Trouble::unreachable(format!("no certificate within {ORDER_TIME:?}"))))?;
        let certified = self.check(&chain, &key).map_err(|e| Trouble::refused(format!("the certificate is of no use: {e:#}")))?;
        if let Err(e) = self.store.keep(&chain, &key) {
            // It serves; but a new start will have to ask again.
            error!("the new certificate is in use, and cannot be kept: {e:#}");
        }
        Ok(certified)
    }

    /// When the directory wants a certificate to be renewed, and when it wants to be asked again. `None`: it does not say.
    pub(super) async fn suggested(&self, leaf: &Leaf) -> Result<Option<(Window, Duration)>, Trouble> {
        let Some(identifier) = leaf.identifier() else { return Ok(None) };
        let Some(kept) = self.store.account().map_err(|e| Trouble::refused(format!("{e:#}")))? else { return Ok(None) };
        let account = self.known(kept).await?;
        match account.renewal_info(&identifier).await {
            Ok((info, again)) => {
                let window = info.suggested_window;
                Ok(Some(([window.start.into(), window.end.into()], plan::ask_again(again))))
            }
            Err(Error::Unsupported(_)) => Ok(None),
            Err(e) => Err(self.trouble(e)),
        }
    }

    fn trouble(&self, error: Error) -> Trouble {
        Trouble::of(&error, self.config.challenge)
    }

    async fn order(&self, replaced: Option<&Leaf>) -> Result<(String, String), Trouble> {
        let account = self.account().await?;
        let mut order = self.new_order(&account, replaced).await?;
        self.answer(&mut order).await?;
        if order.state().status != OrderStatus::Ready {
            match order.poll_ready(&POLL).await {
                Ok(OrderStatus::Ready) => {}
                Ok(_) | Err(Error::Api(_)) => return Err(self.why_invalid(&mut order).await),
                Err(e) => return Err(self.trouble(e)),
            }
        }
        let (key, request) = self.request().map_err(|e| Trouble::refused(format!("{e:#}")))?;
        order.finalize_csr(&request).await.map_err(|e| self.trouble(e))?;
        let chain = order.poll_certificate(&POLL).await.map_err(|e| self.trouble(e))?;
        Ok((chain, key))
    }

    async fn account(&self) -> Result<Account, Trouble> {
        let kept = self.store.account().map_err(|e| Trouble::refused(format!("{e:#}")))?;
        let contact: Vec<_> = self.config.contact.as_deref().into_iter().collect();
        let Some(kept) = kept else { return self.new_account(&contact).await };
        let changed = kept.contact != self.config.contact;
        let account = self.known(kept).await?;
        if changed {
            account.update_contacts(&contact).await.map_err(|e| self.trouble(e))?;
            // Who it is stays the same: it is read anew, since the crate gives the key to nobody.
            if let Ok(Some(kept)) = self.store.account() {
                self.keep_account(kept.credentials)?;
            }
        }
        Ok(account)
    }

    async fn known(&self, kept: store::Account) -> Result<Account, Trouble> {
        let builder = Account::builder_with_http(Box::new(self.web.clone()));
        builder.from_credentials(kept.credentials).await.map_err(|e| self.trouble(e))
    }

    async fn new_account(&self, contact: &[&str]) -> Result<Account, Trouble> {
        let wanted = NewAccount { contact, terms_of_service_agreed: true, only_return_existing: false };
        let builder = Account::builder_with_http(Box::new(self.web.clone()));
        let made = builder.create(&wanted, self.config.directory.clone(), None).await;
        let (account, credentials) = made.map_err(|e| self.trouble(e))?;
        self.keep_account(credentials)?;
        info!(directory = %self.config.directory, "an account was made at the directory");
        Ok(account)
    }

    fn keep_account(&self, credentials: instant_acme::AccountCredentials) -> Result<(), Trouble> {
        let account = store::Account { contact: self.config.contact.clone(), credentials };
        // Without it each attempt would make another.
        self.store.keep_account(&account).map_err(|e| Trouble::refused(format!("{e:#}")))
    }

    /// Told what it replaces, a directory does not count an order against its limits (RFC 9773 5).
    async fn new_order(&self, account: &Account, replaced: Option<&Leaf>) -> Result<Order, Trouble> {
        let names: Vec<_> = self.config.names.iter().cloned().map(Identifier::Dns).collect();
        if let Some(replaced) = replaced.and_then(Leaf::identifier) {
            match account.new_order(&NewOrder::new(&names).replaces(replaced)).await {
                // It knows nothing of that, and was not asked.
                Err(Error::Unsupported(_)) => {}
                ordered => return ordered.map_err(|e| self.trouble(e)),
            }
        }
        account.new_order(&NewOrder::new(&names)).await.map_err(|e| self.trouble(e))
    }

    /// Puts the answers where the directory will look, then says that it may.
    async fn answer(&self, order: &mut Order) -> Result<(), Trouble> {
        let kind = match self.config.challenge {
            AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            AcmeChallenge::Http01 => ChallengeType::Http01,
        };
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|e| self.trouble(e))?;
            match authorization.status {
                AuthorizationStatus::Pending => {}
                // Shown not long ago.
                AuthorizationStatus::Valid => continue,
                status => return Err(Trouble::refused(format!("the directory calls a name {status:?} before it has looked"))),
            }
            let name = authorization.identifier().to_string();
            let mut challenge = authorization.challenge(kind.clone()).ok_or_else(|| {
                Trouble::refused(format!("the directory does not offer this challenge for {name}: see tls.acme_challenge"))
            })?;
            let answer = challenge.key_authorization();
            match self.config.challenge {
                AcmeChallenge::TlsAlpn01 => {
                    let shown = self.answers.by_tls(&name, &answer, &self.provider);
                    shown.map_err(|e| Trouble::refused(format!("{e:#}")))?;
                }
                AcmeChallenge::Http01 => self.answers.by_http(&challenge.token, &answer),
            }
            challenge.set_ready().await.map_err(|e| self.trouble(e))?;
        }
        Ok(())
    }

    /// The reason stands with the challenges.
    async fn why_invalid(&self, order: &mut Order) -> Trouble {
        let mut failed = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            if authorization.refresh().await.is_err() {
                break;
            }
            let name = authorization.identifier().to_string();
            failed.extend(authorization.challenges.iter().filter_map(|challenge| Some((name.clone(), challenge.error.clone()?))));
        }
        if let (true, Some(problem)) = (failed.is_empty(), order.state().error.clone()) {
            return self.trouble(Error::Api(problem));
        }
        Trouble::challenges(&failed, self.config.challenge)
    }

    /// A new key, as PEM, and the request for it.
    fn request(&self) -> anyhow::Result<(String, CertificateDer<'static>)> {
        let mut parameters = rcgen::CertificateParams::new(self.config.names.clone())?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        let key = rcgen::KeyPair::generate().context("a key for the certificate")?;
        let request = parameters.serialize_request(&key)?;
        Ok((key.serialize_pem(), CertificateDer::from(request.der().to_vec())))
    }

    /// That it is what was asked for, before it replaces anything.
    fn check(&self, chain: &str, key: &str) -> anyhow::Result<CertifiedKey> {
        let certified = pair::certified(chain.as_bytes(), key.as_bytes(), &self.provider)?;
        let leaf = Leaf::read(certified.end_entity_cert()?)?;
        anyhow::ensure!(leaf.is_for(&self.config.names), "it is for {}", leaf.names.join(" "));
        Ok(certified)
    }
}
