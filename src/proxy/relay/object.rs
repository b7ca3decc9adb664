//! JSON objects, read with their members in the order in which they came.
//!
//! A map of serde's own keeps the last of several members of one name, and
//! every member whether it means something or not. Who is asked first may go
//! by another of them (RFC 8259 §4), and a call of some MiB can name a million.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The members of a call that mean something, as they are written; `null` is
/// as good as none. None comes twice.
#[derive(Debug, Default)]
pub(super) struct Members<'j> {
    pub(super) method: Option<&'j RawValue>,
    pub(super) path: Option<&'j RawValue>,
    pub(super) hostname: Option<&'j RawValue>,
    pub(super) headers: Option<&'j RawValue>,
    pub(super) body: Option<&'j RawValue>,
}

impl<'j> Deserialize<'j> for Members<'j> {
    fn deserialize<D: Deserializer<'j>>(deserializer: D) -> Result<Self, D::Error> {
        struct Call;

        impl<'j> Visitor<'j> for Call {
            type Value = Members<'j>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a call's object")
            }

            fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Members<'j>, A::Error> {
                let mut seen = Members::default();
                while let Some(name) = map.next_key::<String>()? {
                    let member = match &*name {
                        "method" => &mut seen.method,
                        "path" => &mut seen.path,
                        "hostname" => &mut seen.hostname,
                        "headers" => &mut seen.headers,
                        "body" => &mut seen.body,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    if member.is_some() {
                        return Err(A::Error::custom("a member comes twice"));
                    }
                    *member = Some(map.next_value()?);
                }
                let said = |member: Option<&'j RawValue>| member.filter(|raw| raw.get() != "null");
                Ok(Members {
                    method: said(seen.method),
                    path: said(seen.path),
                    hostname: said(seen.hostname),
                    headers: said(seen.headers),
                    body: said(seen.body),
                })
            }
        }

        deserializer.deserialize_map(Call)
    }
}

/// Any object.
#[derive(Debug)]
pub(super) struct Object(pub(super) Vec<(String, Value)>);

impl<'j> Deserialize<'j> for Object {
    fn deserialize<D: Deserializer<'j>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'j> Visitor<'j> for All {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(All)
    }
}
