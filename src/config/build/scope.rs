//! The settings that pass from `http` to `server` to `location`.

use super::access::AccessSettings;
use super::authorization::Authorization;
use super::connection::Connection;
use super::cors::CorsSettings;
use super::files::FileSettings;
use super::gzip::GzipSettings;
use super::limits::LimitSettings;
use super::proxy::ProxySettings;
use super::proxy_tls::ProxyTlsSettings;
use super::real_ip::RealIpSettings;
use super::referers::RefererSettings;
use super::resolver::Names;
use super::response::Response;
use super::routing::Routing;
use super::tls::TlsSettings;
use super::{Builder, Result};
use crate::config::model::ProxyFamily;
use crate::config::syntax::Directive;

/// Copies every field that the inner block leaves unsaid.
macro_rules! inherit {
    ($inner:expr, $outer:expr; $($field:ident),+ $(,)?) => {
        $(if $inner.$field.is_none() {
            $inner.$field.clone_from(&$outer.$field);
        })+
    };
}
pub(super) use inherit;

/// What one block says, and after [`Scope::inherit`] what holds in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    pub(super) access: AccessSettings,
    pub(super) authorization: Authorization,
    pub(super) connection: Connection,
    pub(super) files: FileSettings,
    pub(super) gzip: GzipSettings,
    pub(super) limits: LimitSettings,
    pub(super) real_ip: RealIpSettings,
    pub(super) names: Names,
    pub(super) referers: RefererSettings,
    pub(super) response: Response,
    pub(super) proxy: ProxySettings,
    pub(super) proxy_tls: ProxyTlsSettings,
    pub(super) grpc: ProxySettings,
    pub(super) grpc_tls: ProxyTlsSettings,
    pub(super) routing: Routing,
    pub(super) cors: CorsSettings,
    pub(super) tls: TlsSettings,
}

impl Scope {
    /// Takes a directive; `false` when it is not an inheritable setting.
    pub(super) fn apply(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<bool> {
        Ok(self.access.apply(builder, d)?
            || self.authorization.apply(d)?
            || self.connection.apply(builder, d)?
            || self.files.apply(builder, d)?
            || self.gzip.apply(builder, d)?
            || self.limits.apply(builder, d)?
            || self.real_ip.apply(builder, d)?
            || self.names.apply(builder, d)?
            || self.referers.apply(builder, d)?
            || self.response.apply(builder, d)?
            || self.proxy.apply(builder, ProxyFamily::Proxy, d)?
            || self.proxy_tls.apply(builder, ProxyFamily::Proxy, d)?
            || self.grpc.apply(builder, ProxyFamily::Grpc, d)?
            || self.grpc_tls.apply(builder, ProxyFamily::Grpc, d)?
            || self.routing.apply(builder, d)?
            || self.cors.apply(builder, d)?
            || self.tls.apply(builder, d)?)
    }

    /// What holds for the backends of one family.
    pub(super) fn backend(&self, family: ProxyFamily) -> (&ProxySettings, &ProxyTlsSettings) {
        match family {
            ProxyFamily::Proxy => (&self.proxy, &self.proxy_tls),
            ProxyFamily::Grpc => (&self.grpc, &self.grpc_tls),
        }
    }

    pub(super) fn inherit(&mut self, outer: &Self) {
        self.access.inherit(&outer.access);
        self.authorization.inherit(&outer.authorization);
        self.connection.inherit(&outer.connection);
        self.files.inherit(&outer.files);
        self.gzip.inherit(&outer.gzip);
        self.limits.inherit(&outer.limits);
        self.real_ip.inherit(&outer.real_ip);
        self.names.inherit(&outer.names);
        self.referers.inherit(&outer.referers);
        self.response.inherit(&outer.response);
        self.proxy.inherit(&outer.proxy);
        self.proxy_tls.inherit(&outer.proxy_tls);
        self.grpc.inherit(&outer.grpc);
        self.grpc_tls.inherit(&outer.grpc_tls);
        self.routing.inherit(&outer.routing);
        self.cors.inherit(&outer.cors);
        self.tls.inherit(&outer.tls);
    }
}
