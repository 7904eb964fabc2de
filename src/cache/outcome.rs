//! What the cache did with a request: the one value that becomes the `Cache-Status` field, the metric label and the
//! field of the access line.

use std::io::Write;

use http::HeaderValue;

use crate::object::entry::Entry;

/// Why a request went to the origin (RFC 9211 section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forward {
    /// The route does not use the cache.
    Bypass,
    /// The method is not answered from the cache.
    Method,
    /// Nothing stored under the key.
    UriMiss,
    /// Something stored, but no variant that fits.
    VaryMiss,
    /// The request asked for it (`no-cache`, `max-age`, ...).
    Request,
    /// What is stored was stale, or must be validated.
    Stale,
    /// What is stored is only a part.
    Partial,
    /// The key proved not storable a moment ago.
    HitForMiss,
}

impl Forward {
    /// As `fwd` says it; a hit-for-miss is a `miss`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
            Self::HitForMiss => "miss",
        }
    }
}

/// Which tier answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// Memory.
    L1,
    /// Redis, which several nodes share.
    L2,
    /// The disk.
    L3,
    /// A pack of recorded calls.
    Pack,
}

impl Tier {
    /// The one that has the content of a stored response.
    pub(super) fn of(entry: &Entry) -> Self {
        if entry.elsewhere().is_some() { Self::L3 } else { Self::L1 }
    }

    /// As labels and `detail` say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
            Self::Pack => "pack",
        }
    }
}

/// How the request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// From the cache, fresh.
    Hit(Tier),
    /// From the cache, stale while a refresh runs.
    StaleHit(Tier),
    /// From the cache, stale because the origin failed.
    StaleOnError(Tier),
    /// By the origin, a stored response confirmed by 304.
    Revalidated,
    /// By the origin.
    Forwarded,
    /// By the gateway itself: an error, a refusal.
    Synthesised,
    /// By the gateway itself, because a limit is used up.
    Limited,
}

/// The outcome of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How it was answered.
    pub kind: Kind,
    /// Why it was forwarded, if it was.
    pub forward: Option<Forward>,
    /// Status the origin gave, where the client got another one.
    pub forward_status: Option<u16>,
    /// Seconds of freshness left; negative: so long stale.
    pub ttl: Option<i64>,
    /// Whether the response is stored.
    pub stored: bool,
    /// Whether another request's origin call answered this one.
    pub collapsed: bool,
    /// Why the response is not stored, or another word on the decision.
    pub detail: Option<&'static str>,
}

impl Outcome {
    /// Answered from `tier`.
    pub fn hit(tier: Tier, ttl: i64) -> Self {
        Self { ttl: Some(ttl), ..Self::of(Kind::Hit(tier)) }
    }

    /// Nothing but `kind`.
    pub fn of(kind: Kind) -> Self {
        Self { kind, forward: None, forward_status: None, ttl: None, stored: false, collapsed: false, detail: None }
    }

    /// Answered by the origin, because of `forward`.
    pub fn forwarded(forward: Forward) -> Self {
        Self { forward: Some(forward), ..Self::of(Kind::Forwarded) }
    }

    /// Every word [`Outcome::name`] can be, in the order of [`Outcome::index`].
    pub const NAMES: [&'static str; 12] = [
        "hit",
        "stale",
        "stale-if-error",
        "revalidated",
        "error",
        "collapsed",
        "pass",
        "hit-for-miss",
        "refresh",
        "expired",
        "miss",
        "limited",
    ];

    /// One word, for metrics and the access line.
    pub fn name(&self) -> &'static str {
        Self::NAMES[self.index()]
    }

    /// Place of [`Outcome::name`] in [`Outcome::NAMES`].
    pub fn index(&self) -> usize {
        match self.kind {
            Kind::Hit(_) => 0,
            Kind::StaleHit(_) => 1,
            Kind::StaleOnError(_) => 2,
            Kind::Revalidated => 3,
            Kind::Synthesised => 4,
            Kind::Limited => 11,
            Kind::Forwarded if self.collapsed => 5,
            Kind::Forwarded => match self.forward {
                Some(Forward::Bypass | Forward::Method) => 6,
                Some(Forward::HitForMiss) => 7,
                Some(Forward::Request) => 8,
                Some(Forward::Stale) => 9,
                _ => 10,
            },
        }
    }

    /// One word on why, for the access line: the tier that answered or how it could, why nothing was stored, why it was
    /// forwarded.
    pub fn reason(&self) -> &'static str {
        let tier = self.tier().map(Tier::as_str);
        self.detail.or(tier).or(self.forward.map(Forward::as_str)).unwrap_or("")
    }

    /// The tier that answered, if one did.
    pub fn tier(&self) -> Option<Tier> {
        match self.kind {
            Kind::Hit(tier) | Kind::StaleHit(tier) | Kind::StaleOnError(tier) => Some(tier),
            _ => None,
        }
    }

    /// Whether the client got a stored response without waiting for the origin to confirm it.
    pub fn is_hit(&self) -> bool {
        self.tier().is_some()
    }

    /// The member of `Cache-Status` (RFC 9211) of the cache `name`.
    pub fn cache_status(&self, name: &str) -> HeaderValue {
        let mut text = [0_u8; 192];
        let mut rest = &mut text[..];
        // A name too long for the buffer is refused by the configuration, so this cannot run out of room.
        let _ = self.write(name, &mut rest);
        let unused = rest.len();
        let used = text.len() - unused;
        HeaderValue::from_bytes(&text[..used]).unwrap_or_else(|_| HeaderValue::from_static("larder"))
    }

    pub(super) fn write(&self, name: &str, out: &mut impl Write) -> std::io::Result<()> {
        out.write_all(name.as_bytes())?;
        if self.is_hit() && self.forward.is_none() {
            out.write_all(b"; hit")?;
        }
        if let Some(forward) = self.forward {
            out.write_all(b"; fwd=")?;
            out.write_all(forward.as_str().as_bytes())?;
        }
        if let Some(status) = self.forward_status {
            out.write_all(b"; fwd-status=")?;
            out.write_all(itoa::Buffer::new().format(status).as_bytes())?;
        }
        if let Some(ttl) = self.ttl {
            out.write_all(b"; ttl=")?;
            out.write_all(itoa::Buffer::new().format(ttl).as_bytes())?;
        }
        if self.stored {
            out.write_all(b"; stored")?;
        }
        if self.collapsed {
            out.write_all(b"; collapsed")?;
        }
        match (self.tier(), self.detail) {
            (Some(tier), None) => {
                out.write_all(b"; detail=")?;
                out.write_all(tier.as_str().as_bytes())
            }
            (_, Some(detail)) => {
                out.write_all(b"; detail=")?;
                out.write_all(detail.as_bytes())
            }
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_rfc_9211_writes_it() {
        assert_eq!(Outcome::hit(Tier::L1, 30).cache_status("larder"), "larder; hit; ttl=30; detail=L1");
        let stored = Outcome { stored: true, ttl: Some(60), ..Outcome::forwarded(Forward::UriMiss) };
        assert_eq!(stored.cache_status("larder"), "larder; fwd=uri-miss; ttl=60; stored");
        let confirmed = Outcome {
            forward: Some(Forward::Stale),
            forward_status: Some(304),
            stored: true,
            collapsed: true,
            ..Outcome::of(Kind::Revalidated)
        };
        assert_eq!(confirmed.cache_status("larder"), "larder; fwd=stale; fwd-status=304; stored; collapsed");
    }
}
