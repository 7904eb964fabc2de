//! Lists of inputs taken apart, and their answers put together again: each input has an answer of its own, whichever others
//! it was sent with.
//!
//! The answer of one input is what a provider would have said to it alone: the whole text of an answer with one element, in
//! the provider's own bytes. What is put together has the members of the first in their order.

use std::ops::Range;

use super::json::{Kind, Value};

/// The inputs of a request; `None` where they are of a form that nobody takes apart.
///
/// A text is one input, and so is a list of tokens; a list of either is as many.
pub fn inputs<'b, 'a>(body: &'b Value<'a>) -> Option<(Vec<&'b Value<'a>>, Range<usize>)> {
    if let Some(requests) = body.get("requests") {
        return batch(requests);
    }
    let input = body.get("input")?;
    let elements = input.elements();
    let is_token = |value: &Value<'_>| matches!(value.kind, Kind::Number(_));
    let is_input = |value: &Value<'_>| match &value.kind {
        Kind::String(_) => true,
        Kind::Array(tokens) => !tokens.is_empty() && tokens.iter().all(is_token),
        _ => false,
    };
    let inputs = match &input.kind {
        Kind::String(_) => vec![input],
        Kind::Array(_) if is_input(input) => vec![input],
        Kind::Array(_) if !elements.is_empty() && elements.iter().all(is_input) => elements.iter().collect(),
        _ => return None,
    };
    Some((inputs, input.span.clone()))
}

/// Gemini's list of requests, of which each is one input.
fn batch<'b, 'a>(requests: &'b Value<'a>) -> Option<(Vec<&'b Value<'a>>, Range<usize>)> {
    let each = requests.elements();
    let is_one = |request: &Value<'_>| matches!(request.kind, Kind::Object(_));
    (!each.is_empty() && each.iter().all(is_one)).then(|| (each.iter().collect(), requests.span.clone()))
}

/// A request with only those of its inputs, which are given by their places in it.
pub fn with_only(request: &[u8], list: &Range<usize>, inputs: &[Range<usize>]) -> Vec<u8> {
    let mut text = request[..list.start].to_vec();
    text.push(b'[');
    for (nth, input) in inputs.iter().enumerate() {
        if nth > 0 {
            text.push(b',');
        }
        text.extend_from_slice(&request[input.clone()]);
    }
    text.push(b']');
    text.extend_from_slice(&request[list.end..]);
    text
}

/// An answer in the terms that matter here.
struct Answer {
    /// The list of what was answered.
    data: Range<usize>,
    /// Its elements, by the input each answers.
    elements: Vec<Element>,
    /// The numbers of tokens in it: where they are, and how many.
    tokens: Vec<(Range<usize>, u64)>,
}

struct Element {
    span: Range<usize>,
    /// Where in the text its place in the list is told.
    index: Option<Range<usize>>,
}

impl Answer {
    fn of(text: &[u8]) -> Option<Self> {
        let answer = Value::parse(text).ok()?;
        let data = answer.get("data").or_else(|| answer.get("embeddings"))?;
        let Kind::Array(listed) = &data.kind else { return None };
        let mut elements: Vec<Option<Element>> = listed.iter().map(|_| None).collect();
        for (nth, element) in listed.iter().enumerate() {
            let index = element.get("index");
            let place = match index {
                Some(index) => usize::try_from(index.whole()?).ok()?,
                None => nth,
            };
            element.get("embedding").or_else(|| element.get("values"))?;
            let free = elements.get_mut(place).filter(|free| free.is_none())?;
            *free = Some(Element { span: element.span.clone(), index: index.map(|index| index.span.clone()) });
        }
        let tokens = answer.get("usage").map(Value::members).unwrap_or_default().iter();
        let tokens = tokens.filter_map(|member| Some((member.value.span.clone(), member.value.whole()?))).collect();
        Some(Self { data: data.span.clone(), elements: elements.into_iter().collect::<Option<_>>()?, tokens })
    }
}

/// Changes to a text, each a place and what comes there.
type Edits = Vec<(Range<usize>, Vec<u8>)>;

fn edited(text: &[u8], mut edits: Edits) -> Vec<u8> {
    edits.sort_unstable_by_key(|(place, _)| place.start);
    let (mut done, mut at) = (Vec::with_capacity(text.len()), 0);
    for (place, new) in edits {
        done.extend_from_slice(&text[at..place.start]);
        done.extend_from_slice(&new);
        at = place.end;
    }
    done.extend_from_slice(&text[at..]);
    done
}

/// An element's text, told to be at that place.
fn moved(text: &[u8], element: &Element, place: usize) -> Vec<u8> {
    let start = element.span.start;
    let index = element.index.iter().map(|index| index.start - start..index.end - start);
    edited(&text[element.span.clone()], index.map(|index| (index, place.to_string().into_bytes())).collect())
}

/// The answers of each input, from that of `inputs` of them together; `None` where it does not answer just these.
///
/// The tokens are shared out evenly: together they are what was paid for.
pub fn split(answer: &[u8], inputs: usize) -> Option<Vec<Vec<u8>>> {
    let Answer { data, elements, tokens } = Answer::of(answer)?;
    if elements.len() != inputs {
        return None;
    }
    let one = |(nth, element): (usize, &Element)| {
        let mut list = vec![b'['];
        list.extend(moved(answer, element, 0));
        list.push(b']');
        let mut edits = vec![(data.clone(), list)];
        for (place, count) in &tokens {
            edits.push((place.clone(), share(*count, nth, inputs).to_string().into_bytes()));
        }
        edited(answer, edits)
    };
    Some(elements.iter().enumerate().map(one).collect())
}

/// What the `nth` of `all` gets of `count`.
pub fn share(count: u64, nth: usize, all: usize) -> u64 {
    let (nth, all) = (nth as u64, (all as u64).max(1));
    count / all + u64::from(nth < count % all)
}

/// One answer of those to each input, in their order.
pub fn join(answers: &[&[u8]]) -> Option<Vec<u8>> {
    let (first, _) = answers.split_first()?;
    let mut list = vec![b'['];
    let mut sums: Vec<(Range<usize>, u64)> = Vec::new();
    let mut place_of_list = None;
    for (place, text) in answers.iter().enumerate() {
        let Answer { data, elements, tokens } = Answer::of(text)?;
        let [element] = &elements[..] else { return None };
        if place > 0 {
            list.push(b',');
        }
        list.extend(moved(text, element, place));
        if place == 0 {
            (place_of_list, sums) = (Some(data), tokens);
        } else {
            sums.iter_mut().zip(tokens).for_each(|((_, sum), (_, count))| *sum = sum.saturating_add(count));
        }
    }
    list.push(b']');
    let mut edits = vec![(place_of_list?, list)];
    edits.extend(sums.into_iter().map(|(place, sum)| (place, sum.to_string().into_bytes())));
    Some(edited(first, edits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn answer(inputs: &[usize], tokens: u64) -> String {
        let data: Vec<_> = inputs
            .iter()
            .enumerate()
            .map(|(index, input)| json!({ "object": "embedding", "index": index, "embedding": [input, 0.5] }))
            .collect();
        let usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
        json!({ "object": "list", "data": data, "model": "m", "usage": usage, "x": [1] }).to_string()
    }

    fn spans(body: &str) -> Option<Vec<String>> {
        let parsed = Value::parse(body.as_bytes()).expect("JSON");
        let (inputs, _) = inputs(&parsed)?;
        Some(inputs.iter().map(|input| body[input.span.clone()].to_owned()).collect())
    }

    #[test]
    fn forms_of_inputs() {
        let all = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(spans(r#"{"input":"a"}"#), all(&["\"a\""]));
        assert_eq!(spans(r#"{"input":["a", "b"]}"#), all(&["\"a\"", "\"b\""]));
        assert_eq!(spans(r#"{"input":[1, 2]}"#), all(&["[1, 2]"]));
        assert_eq!(spans(r#"{"input":[[1],[2, 3]]}"#), all(&["[1]", "[2, 3]"]));
        for none in [r#"{"input":[]}"#, r#"{"input":["a",1]}"#, r#"{"input":[[]]}"#, r#"{"input":{}}"#, "{}"] {
            assert_eq!(spans(none), None, "{none}");
        }
    }

    #[test]
    fn a_request_for_some() {
        let body = r#"{"input" : ["a", "b","c"], "model":"m"}"#;
        let parsed = Value::parse(body.as_bytes()).expect("JSON");
        let (inputs, list) = inputs(&parsed).expect("inputs");
        let wanted = [inputs[0].span.clone(), inputs[2].span.clone()];
        assert_eq!(with_only(body.as_bytes(), &list, &wanted), br#"{"input" : ["a","c"], "model":"m"}"#);
    }

    #[test]
    fn what_does_not_answer_is_not_taken() {
        assert_eq!(split(answer(&[1, 2], 5).as_bytes(), 3), None);
        for wrong in [
            "",
            "{}",
            r#"{"data":[{"index":1,"embedding":[]}]}"#,
            r#"{"data":[{"index":0,"embedding":[]},{"index":0,"embedding":[]}]}"#,
            r#"{"data":[{"index":0},{"index":1}]}"#,
        ] {
            assert_eq!(split(wrong.as_bytes(), 1), None, "{wrong}");
        }
    }

    #[test]
    fn places_are_told_by_index_and_not_by_order() {
        let turned =
            r#"{"data":[{"index":1,"embedding":"b"},{"embedding":"a","index":0}],"usage":{"prompt_tokens":3}}"#;
        let parts = split(turned.as_bytes(), 2).expect("two");
        assert_eq!(parts[0], br#"{"data":[{"embedding":"a","index":0}],"usage":{"prompt_tokens":2}}"#);
        assert_eq!(parts[1], br#"{"data":[{"index":0,"embedding":"b"}],"usage":{"prompt_tokens":1}}"#);
    }

    proptest! {
        /// Whatever was known before: the answer is that of a provider who was sent everything.
        #[test]
        fn prop_put_together_as_if_all_had_been_sent(
            inputs in prop::collection::vec(0..9_usize, 1..12), tokens in 0..1000_u64, cut in 0..12_usize,
        ) {
            let cut = cut.min(inputs.len());
            let (known, new) = inputs.split_at(cut);
            let split = |inputs: &[usize], tokens| match inputs {
                [] => Vec::new(),
                _ => super::split(answer(inputs, tokens).as_bytes(), inputs.len()).expect("answers"),
            };
            let parts = [split(known, tokens), split(new, 7)].concat();
            let parts: Vec<_> = parts.iter().map(Vec::as_slice).collect();
            let total = u64::from(cut > 0) * tokens + 7 * u64::from(!new.is_empty());
            let joined: serde_json::Value = serde_json::from_slice(&join(&parts).expect("one")).expect("JSON");
            prop_assert_eq!(joined, serde_json::from_str::<serde_json::Value>(&answer(&inputs, total)).expect("JSON"));
        }

        #[test]
        fn prop_nothing_makes_it_panic(text in "[\\[\\]{}:,\"0-9a-z ]{0,60}") {
            let _ = split(text.as_bytes(), 2);
            let _ = join(&[text.as_bytes(), text.as_bytes()]);
        }
    }
}
