//! What kind of request it is: passed on as it is, or answered by way of the tiers and the fills.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Cache,
    asked::Asked,
    call::{Answer, Call, Outgoing},
    exchange::Exchange,
    failure::Failure,
    key_body,
    outcome::Forward,
    route::Class,
    target::stored_method,
};
use crate::{object::directives::RequestDirectives, origin::RequestBody};

impl Cache {
    /// Answers a request, whatever it takes.
    ///
    /// # Errors
    /// Where no answer can be had: the origin failed and nothing stored may stand in for it.
    pub async fn call<O: Outgoing>(&self, call: Call<O>) -> Result<Answer, Arc<Failure>> {
        if let Some(models) = call.route.models.clone() {
            return self.call_model(call, models).await;
        }
        let class = call.route.class(&call.method);
        let asked = Asked::of(&call.headers);
        let directives = self.directives(&call.route, &&call.headers, asked);
        // What must not be answered from here must not be forwarded either (RFC 9111 section 5.2.1.7).
        if directives.only_if_cached && (directives.no_store || asked.for_origin) && class != Class::Other {
            return Err(Arc::new(Failure::OnlyIfCached));
        }
        let pass = if call.route.bypass() {
            Some(Forward::Bypass)
        } else if directives.no_store || asked.for_origin {
            Some(Forward::Request)
        } else {
            match class {
                Class::Other => Some(Forward::Method),
                // Content of a GET or HEAD has no meaning, so it is no part of the key; whoever sends some is on its
                // own.
                Class::Get | Class::Head if !matches!(call.body, RequestBody::Empty) => Some(Forward::Bypass),
                Class::Get | Class::Head | Class::WithBody => None,
            }
        };
        match pass {
            Some(forward) => Box::pin(self.pass(call, forward, None)).await,
            None if class == Class::WithBody => Box::pin(self.call_with_body(call, asked, directives)).await,
            None => {
                let method = call.method.clone();
                self.exchange(call, class, asked, directives, None).run(method).await
            }
        }
    }

    /// QUERY, and POST where it is part of the cache: the body is read first, for the key.
    async fn call_with_body<O: Outgoing>(
        &self,
        mut call: Call<O>,
        asked: Asked,
        directives: RequestDirectives,
    ) -> Result<Answer, Arc<Failure>> {
        let max = call.route.policy.key_body_bytes_max.as_u64();
        let body = std::mem::replace(&mut call.body, RequestBody::Empty);
        match key_body::collect(body, max).await.map_err(|error| Arc::new(Failure::RequestBody(error)))? {
            Ok(body) => {
                let method = call.method.clone();
                self.exchange(call, Class::WithBody, asked, directives, Some(body)).run(method).await
            }
            // Too large for a key: what was read goes along with the rest.
            Err(rest) => {
                call.body = rest;
                self.pass(call, Forward::Bypass, None).await
            }
        }
    }

    fn exchange<O: Outgoing>(
        &self,
        call: Call<O>,
        class: Class,
        asked: Asked,
        directives: RequestDirectives,
        body: Option<Bytes>,
    ) -> Arc<Exchange<O>> {
        let content = body.as_deref().map(|body| (&call.method, body));
        let key = call.target.key(&call.route, self.secret(), &call.headers, class, content);
        Arc::new(Exchange {
            cache: self.clone(),
            method: stored_method(class, &call.method),
            route: call.route,
            target: call.target,
            headers: call.headers,
            asked,
            directives,
            key,
            body,
            outgoing: call.outgoing,
            model: None,
        })
    }
}
