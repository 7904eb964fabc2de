//! What tokens cost, by model.

use std::collections::BTreeMap;

use super::answer::Usage;

/// Prices of a model, in US dollars for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// Of the request.
    pub input: f64,
    /// Of the request, where the provider had them in its own cache.
    pub cached: f64,
    /// Of the answer.
    pub output: f64,
}

/// Prices by names of models, or their beginnings.
#[derive(Debug, Clone, Default)]
pub struct Prices(Vec<(Box<str>, Price)>);

/// A text that is no price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a price in dollars for a million tokens, such as \"2.50 in, 1.25 cached, 10.00 out\"")]
pub struct Invalid;

impl std::str::FromStr for Price {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (mut input, mut cached, mut output) = (None, None, None);
        for part in text.split(',') {
            let (number, kind) = part.trim().split_once(' ').ok_or(Invalid)?;
            let number: f64 = number.trim_start_matches('$').parse().map_err(|_| Invalid)?;
            if !(0.0..1e6).contains(&number) {
                return Err(Invalid);
            }
            let place = match kind.trim() {
                "in" => &mut input,
                "cached" => &mut cached,
                "out" => &mut output,
                _ => return Err(Invalid),
            };
            if place.replace(number).is_some() {
                return Err(Invalid);
            }
        }
        let input = input.ok_or(Invalid)?;
        Ok(Self { input, cached: cached.unwrap_or(input), output: output.unwrap_or(0.0) })
    }
}

impl Price {
    /// What that many tokens cost, in dollars.
    #[expect(clippy::cast_precision_loss, reason = "money to the fifteenth digit is exact enough")]
    pub fn of(&self, usage: &Usage) -> f64 {
        let new = usage.input.saturating_sub(usage.cached);
        (new as f64 * self.input + usage.cached as f64 * self.cached + usage.output as f64 * self.output) / 1e6
    }
}

impl Prices {
    /// From names and prices, as texts; what is no price is left out.
    pub fn new(prices: &BTreeMap<String, String>) -> Self {
        let mut prices: Vec<_> =
            prices.iter().filter_map(|(name, price)| Some((name.as_str().into(), price.parse().ok()?))).collect();
        // The longest name that fits is the best.
        prices.sort_by_key(|(name, _): &(Box<str>, Price)| std::cmp::Reverse(name.len()));
        Self(prices)
    }

    /// The price of a model: of its own name, or of the longest one that it begins with at a border of words, as dated
    /// versions do. A maker's name before a slash does not count.
    pub fn of(&self, model: &str) -> Option<Price> {
        let find = |model: &str| {
            let fits = |name: &str| {
                model.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '@', ':', '_']))
            };
            self.0.iter().find(|(name, _)| fits(name)).map(|(_, price)| *price)
        };
        find(model).or_else(|| find(model.rsplit('/').next()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!("2.50 in, 1.25 cached, 10 out".parse(), Ok(Price { input: 2.5, cached: 1.25, output: 10.0 }));
        assert_eq!("$0.02 in".parse(), Ok(Price { input: 0.02, cached: 0.02, output: 0.0 }));
        for wrong in ["", "2.50", "2 out", "2 in, 3 in", "-1 in", "1 in, 2 of", "nan in", "1e9 in"] {
            assert_eq!(wrong.parse::<Price>(), Err(Invalid), "{wrong}");
        }
    }

    #[test]
    fn by_name() {
        let prices = [("gpt-4o", "2 in"), ("gpt-4o-mini", "1 in"), ("o3", "3 in")];
        let prices = Prices::new(&prices.map(|(name, price)| (name.to_owned(), price.to_owned())).into());
        let input = |model: &str| prices.of(model).map(|price| price.input);
        assert_eq!(input("gpt-4o"), Some(2.0));
        assert_eq!(input("gpt-4o-2024-08-06"), Some(2.0));
        assert_eq!(input("gpt-4o-mini-2024-07-18"), Some(1.0));
        assert_eq!(input("openai/gpt-4o-mini"), Some(1.0));
        assert_eq!((input("gpt-4"), input("gpt-4ox"), input("o3x"), input("")), (None, None, None, None));
    }

    #[test]
    fn sums() {
        let price = Price { input: 2.0, cached: 1.0, output: 10.0 };
        let cost = price.of(&Usage { input: 1_500_000, cached: 500_000, output: 100_000 });
        assert!((cost - 3.5).abs() < 1e-9, "{cost}");
    }
}
