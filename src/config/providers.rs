//! The routes of providers of language models, which are there without a word of configuration.

use std::{collections::BTreeMap, sync::LazyLock};

use figment::value::Value;

use super::{
    error::Place,
    key_path::KeyPath,
    layer::{RouteSettings, Setting},
};
use crate::llm::{
    endpoint::Protocol,
    price::Prices,
    provider::{Config, Provider},
};

/// One for each provider that is to have one.
pub(super) fn routes(config: &Config) -> impl Iterator<Item = RouteSettings> {
    config.routes.iter().filter_map(|name| Provider::named(name)).map(route)
}

fn route(provider: &'static Provider) -> RouteSettings {
    let setting = |key: &str, value: Value| Setting::new(KeyPath::root().key(key), value, Place::Default);
    let protocol = match provider.protocol {
        None => "http",
        Some(Protocol::Openai) => "openai",
        Some(Protocol::Anthropic) => "anthropic",
        Some(Protocol::Gemini) => "gemini",
    };
    let mut settings = vec![
        setting("name", provider.name.into()),
        setting("path", format!("/{}", provider.name).into()),
        setting("strip_path", true.into()),
        setting("upstream", provider.base.into()),
        setting("protocol", protocol.into()),
    ];
    if provider.protocol.is_none() {
        settings.push(Setting::new(KeyPath::root().key("cache").key("mode"), "bypass", Place::Default));
    }
    RouteSettings { path: KeyPath::root().key("route").named(provider.name), place: Place::Default, settings }
}

/// Prices that providers publish, with their date.
const PRICES: &str = include_str!("../../config/prices.toml");

/// What tokens cost.
pub(super) fn prices(config: &Config) -> Prices {
    static PUBLISHED: LazyLock<BTreeMap<String, String>> =
        LazyLock::new(|| toml_edit::de::from_str(PRICES).expect("compiled in, and parsed by a test"));
    let mut prices = PUBLISHED.clone();
    prices.extend(config.prices.clone());
    Prices::new(&prices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::price::Price;

    #[test]
    fn published_prices_are_prices() {
        let prices: BTreeMap<String, String> = toml_edit::de::from_str(PRICES).expect("TOML");
        for (model, price) in &prices {
            assert!(price.parse::<Price>().is_ok(), "{model}: {price}");
        }
        let known = super::prices(&Config { routes: vec![], prices: BTreeMap::new() });
        assert!(known.of("gpt-4o-mini-2024-07-18").is_some());
    }
}
