//! A limit that all nodes keep together: the arrival time ([`super::gcra`]) lies in Redis, and one script moves it on,
//! by the clock of Redis. Names: `namespace:limit.1:hash`, one for each limit and caller, so that a cluster spreads
//! them.
//!
//! The hash is keyed with the deployment's secret: addresses and values of fields are not to be read there.

use std::time::Duration;

use super::gcra::Rate;
use crate::kv::{Class, Error, Kv, Script, value as replies};

/// Takes as many as there are of those that are asked for. Times are microseconds, as Redis tells them, and as fine as
/// the numbers of Lua hold them for the next thousand years; an interval may be a fraction.
///
/// KEYS: the arrival time. ARGV: interval, burst, how many are wanted. Answers: how many are granted, how many are
/// left, until there is all of it again, until there is one.
static TAKE: Script = Script::new(
    r"
local interval, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local window = interval * burst
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local arrival = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
if arrival < now then arrival = now end
if arrival > now + window then arrival = now + window end
local left = math.floor((now + window - arrival) / interval + 0.001)
local granted = math.min(wanted, left)
if granted > 0 then
  arrival = arrival + granted * interval
  left = left - granted
  local lasts = math.ceil((arrival - now) / 1000) + 1
  redis.call('SET', KEYS[1], string.format('%.3f', arrival), 'PX', string.format('%d', lasts))
end
local wait = 0
if left < 1 then wait = math.max(0, arrival + interval - now - window) end
return {granted, left, math.ceil(arrival - now), math.ceil(wait)}
",
);

/// Names of arrival times are of this form; another one would be another number.
const FORM: u8 = 1;

/// What Redis said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) granted: u64,
    /// How many more it would have granted.
    pub(super) left: u64,
    /// Nanoseconds until there is all of it again.
    pub(super) whole_in: u64,
    /// Nanoseconds until there is one, where there is none.
    pub(super) wait: u64,
}

/// Redis, as limits use it.
pub(super) struct Shared {
    kv: Kv,
    namespace: String,
    timeout: Duration,
    secret: [u8; 32],
}

impl Shared {
    pub(super) fn new(kv: Kv, namespace: &str, timeout: Duration, secret: [u8; 32]) -> Self {
        Self { kv, namespace: namespace.to_owned(), timeout, secret }
    }

    /// Takes up to `wanted` of what there is under `name` for `subject`.
    ///
    /// # Errors
    /// Where Redis has no answer. It may have taken them nevertheless.
    pub(super) async fn take(&self, name: &[&str], subject: u128, rate: &Rate, wanted: u64) -> Result<Said, Error> {
        let key = self.key(name, subject);
        let interval = micros(rate.interval());
        let (burst, wanted) = (rate.burst().to_string(), wanted.to_string());
        let args = [interval.as_bytes(), burst.as_bytes(), wanted.as_bytes()];
        let reply = self.kv.run(Class::Small, self.timeout, &TAKE, &[key.as_bytes()], &args).await?;
        let reply = replies::array(reply)?;
        let number = |place: usize| reply.get(place).and_then(replies::as_number);
        match (number(0), number(1), number(2), number(3)) {
            (Some(granted), Some(left), Some(whole_in), Some(wait)) => {
                Ok(Said { granted, left, whole_in: whole_in.saturating_mul(1000), wait: wait.saturating_mul(1000) })
            }
            _ => Err(Error::Protocol("four numbers were expected".to_owned())),
        }
    }

    fn key(&self, name: &[&str], subject: u128) -> String {
        let mut hash = blake3::Hasher::new_keyed(&self.secret);
        hash.update(b"limit");
        for part in name {
            hash.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        hash.update(&subject.to_le_bytes());
        let hash = hash.finalize().to_hex();
        format!("{}:limit.{FORM}:{}", self.namespace, &hash[..32])
    }
}

/// Nanoseconds as microseconds, with three places behind the point.
fn micros(nanoseconds: u64) -> String {
    format!("{}.{:03}", nanoseconds / 1000, nanoseconds % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_keep_their_fractions() {
        assert_eq!(micros(8_571_428_572), "8571428.572");
        assert_eq!(micros(1_005), "1.005");
    }
}
