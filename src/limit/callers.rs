//! One rate for each of many callers, counted here: for what is no route.

use std::{net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::{gcra::Rate, known::Known, memory::Whose, subject};

/// See the module.
pub struct Callers {
    known: Known,
}

impl Callers {
    /// For so many of them at once.
    pub fn new(callers_max: usize) -> Self {
        Self { known: Known::new(callers_max) }
    }

    /// Takes one of what `rate` gives `address`; `kind` tells apart what is counted.
    ///
    /// # Errors
    /// How long to wait, in whole seconds.
    pub fn take_address(&self, kind: u64, address: IpAddr, rate: &Rate) -> Result<(), Duration> {
        self.take(Whose { limit: kind, subject: subject::of_address(address) }, rate)
    }

    /// How long `address` would have to wait, in whole seconds; `None`: not at all.
    pub fn wait_of_address(&self, kind: u64, address: IpAddr, rate: &Rate) -> Option<Duration> {
        let whose = Whose { limit: kind, subject: subject::of_address(address) };
        let wait = self.known.wait(whose, rate, self.known.now(Instant::now()))?;
        Some(Duration::from_secs(super::fields::seconds(wait)))
    }

    /// As [`Callers::take_address`], of somebody who has a name.
    ///
    /// # Errors
    /// How long to wait, in whole seconds.
    pub fn take_name(&self, kind: u64, name: &str, rate: &Rate) -> Result<(), Duration> {
        self.take(Whose { limit: kind, subject: subject::of_text(name) }, rate)
    }

    fn take(&self, whose: Whose, rate: &Rate) -> Result<(), Duration> {
        let tally = self.known.take(whose, rate, self.known.now(Instant::now()), 1);
        if tally.admitted { Ok(()) } else { Err(Duration::from_secs(super::fields::seconds(tally.reset))) }
    }
}
