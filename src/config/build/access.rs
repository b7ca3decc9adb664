//! Who is let in by address, by password or by another location's word:
//! `allow`, `deny`, `satisfy`, `auth_basic`, `auth_request`.

use std::sync::Arc;
use std::time::Duration;

use super::values::{invalid_parameter, invalid_value, milliseconds, refuse, set};
use super::{Builder, Result, rewrite};
use crate::config::address_rules::{AddressRules, Network};
use crate::config::client_rules::RuleEffect;
use crate::config::model::{Access, AuthBasic, AuthRequest, Satisfy, fixed_folder};
use crate::config::script::Assignable;
use crate::config::source::path_of;
use crate::config::syntax::Directive;
use crate::config::template::Template;

/// As written in one block.
#[derive(Debug, Clone, Default)]
pub(super) struct AccessSettings {
    rules: Option<Arc<AddressRules>>,
    satisfy: Option<Satisfy>,
    auth_basic: Option<Template>,
    user_file: Option<Template>,
    auth_request: Option<Box<[u8]>>,
    auth_request_set: Option<Arc<Vec<(Assignable, Template)>>>,
    auth_delay: Option<Duration>,
}

impl AccessSettings {
    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<bool> {
        match &*d.name.value {
            b"allow" => self.add(builder, d, RuleEffect::Allow)?,
            b"deny" => self.add(builder, d, RuleEffect::Deny)?,
            b"satisfy" => {
                let value = match d.arg(0) {
                    b"all" => Satisfy::All,
                    b"any" => Satisfy::Any,
                    _ => return Err(refuse(d, format!("invalid value \"{}\"", d.text(0)))),
                };
                set(&mut self.satisfy, d, value)?;
            }
            b"auth_basic" => {
                let realm = builder.template(d.arg(0), &d.position)?;
                set(&mut self.auth_basic, d, realm)?;
            }
            b"auth_basic_user_file" => {
                let mut file = builder.template(d.arg(0), &d.position)?;
                if let Some(path) = file.as_literal() {
                    let path = builder.file_to_read(path).into_os_string();
                    file = Template::literal(path.as_encoded_bytes());
                }
                if d.arg(0).contains(&0) {
                    return Err(invalid_value(d));
                }
                set(&mut self.user_file, d, file)?;
            }
            b"auth_request" => {
                // Empty for `off`.
                let uri = Some(d.arg(0)).filter(|uri| *uri != b"off");
                set(&mut self.auth_request, d, uri.unwrap_or_default().into())?;
            }
            b"auth_request_set" => {
                let assignment = rewrite::assignment(builder, d)?;
                Arc::make_mut(self.auth_request_set.get_or_insert_default()).push(assignment);
            }
            b"auth_delay" => set(&mut self.auth_delay, d, milliseconds(d)?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn add(&mut self, builder: &mut Builder<'_>, d: &Directive, effect: RuleEffect) -> Result<()> {
        let rules = Arc::make_mut(self.rules.get_or_insert_default());
        match d.arg(0) {
            b"all" => rules.add_all(effect),
            b"unix:" => rules.add_unix(effect),
            text => rules.add(network(builder, d, text)?, effect),
        }
        Ok(())
    }

    /// A block that has any rule takes none from outside.
    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(
            self, outer;
            rules, satisfy, auth_basic, user_file, auth_request, auth_request_set, auth_delay
        );
    }

    /// What holds; `None` where everybody is let in.
    pub(super) fn finish(&self, builder: &Builder<'_>) -> Option<Box<Access>> {
        let auth_basic = match (&self.auth_basic, &self.user_file) {
            (Some(realm), Some(user_file)) if realm.as_literal() != Some(b"off") => {
                let folder = builder.folder.join(fixed_folder(user_file));
                builder.reach.borrow_mut().passwords.insert(folder);
                Some(AuthBasic {
                    realm: realm.clone(),
                    user_file: user_file.clone(),
                    folder: builder.folder.clone(),
                })
            }
            // As in Nginx, a realm without a file asks for nothing.
            _ => None,
        };
        let uri = self.auth_request.as_ref().filter(|uri| !uri.is_empty());
        let auth_request = uri.map(|uri| AuthRequest {
            uri: uri.clone(),
            set: self.auth_request_set.clone().unwrap_or_default(),
        });
        if self.rules.is_none() && auth_basic.is_none() && auth_request.is_none() {
            return None;
        }
        Some(Box::new(Access {
            satisfy: self.satisfy.unwrap_or_default(),
            rules: self.rules.clone(),
            auth_basic,
            auth_request,
            auth_delay: self.auth_delay.unwrap_or_default(),
        }))
    }
}

/// A network, with a warning about bits that mean nothing.
pub(super) fn network(builder: &mut Builder<'_>, d: &Directive, text: &[u8]) -> Result<Network> {
    let (network, low_bits) = Network::parse(text).map_err(|_| invalid_parameter(d, text))?;
    if low_bits {
        let text = path_of(text);
        let message = format!("low address bits of {} are meaningless", text.display());
        builder.warn(&d.position, message);
    }
    Ok(network)
}
