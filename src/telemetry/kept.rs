//! An access line that is kept until somebody wants to read it: laid out only then.

use super::line::{Cost, Line};

/// Texts of a line.
const TEXTS: usize = 10;

/// A line with all it borrows, in one piece.
#[derive(Debug)]
pub(super) struct Kept {
    /// The line without its texts.
    bare: Line<'static>,
    texts: Box<str>,
    /// Where each of them ends.
    ends: [u32; TEXTS],
}

impl Kept {
    /// As much of that line as it shows.
    pub(super) fn of(line: &Line<'_>) -> Self {
        let line = line.cut();
        let Line { request_id, method, target, host, route, detail, .. } = line;
        let agent = line.user_agent.unwrap_or_default();
        let error = line.error.unwrap_or_default();
        let model = line.cost.map_or("", |cost| cost.model);
        let tenant = line.tenant.unwrap_or_default();
        let texts = [request_id, method, target, host, route, detail, agent, error, model, tenant];
        let mut all = String::with_capacity(texts.iter().map(|text| text.len()).sum());
        let ends = texts.map(|text| {
            all.push_str(text);
            u32::try_from(all.len()).unwrap_or(u32::MAX)
        });
        let bare = Line {
            request_id: "",
            method: "",
            target: "",
            host: "",
            route: "",
            detail: "",
            tenant: line.tenant.map(|_| ""),
            user_agent: line.user_agent.map(|_| ""),
            error: line.error.map(|_| ""),
            cost: line.cost.map(|cost| Cost { model: "", ..cost }),
            ..line
        };
        Self { bare, texts: all.into(), ends }
    }

    /// The line.
    pub(super) fn line(&self) -> Line<'_> {
        let mut start = 0;
        let texts = self.ends.map(|end| {
            let text = &self.texts[start..end as usize];
            start = end as usize;
            text
        });
        let [request_id, method, target, host, route, detail, agent, error, model, tenant] = texts;
        Line {
            request_id,
            method,
            target,
            host,
            route,
            detail,
            tenant: self.bare.tenant.map(|_| tenant),
            user_agent: self.bare.user_agent.map(|_| agent),
            error: self.bare.error.map(|_| error),
            cost: self.bare.cost.map(|cost| Cost { model, ..cost }),
            ..self.bare
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{config::Format, line::tests::line},
        *,
    };

    fn shown(line: &Line<'_>) -> String {
        let mut out = Vec::new();
        line.format(Format::Json, &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn it_shows_what_the_line_shows() {
        let long = format!("/{}?key=secret", "ä".repeat(3000));
        let cost = Cost { model: "m", account: "billed", input_tokens: 1, output_tokens: 2, dollars: Some(0.5) };
        let lines = [
            line(),
            Line { user_agent: None, tenant: Some("search"), error: Some("broken"), cost: Some(cost), ..line() },
            Line { user_agent: Some(""), target: &long, host: &long, detail: &long, ..line() },
        ];
        for line in lines {
            let kept = Kept::of(&line);
            assert_eq!(shown(&kept.line()), shown(&line));
            assert!(kept.texts.len() < 4000, "{}", kept.texts.len());
        }
    }
}
