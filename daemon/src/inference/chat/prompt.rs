//! Messages to token ids: the model's own chat template, its tokenizer, and what is left out when a conversation is too long.
//!
//! What a person writes can never become a control token: the texts of special tokens inside messages are broken up before the
//! template sees them.

use std::{fs, ops::Range, path::Path, sync::Arc};

use minijinja::{Environment, ErrorKind, context};
use serde_json::Value;
use tokenizers::Tokenizer;

use super::{
    super::error::{InferenceError, LoadError},
    ChatMessage, Role,
};

const TEMPLATE: &str = "chat";

/// Conversations of more exchanges than this are shortened by [`STEP`] at a time, shorter ones one by one.
const LONG: usize = 8;

/// Exchanges left out at a time from a long conversation. Chosen so that the shortened prompt keeps the same beginning over four
/// turns, and its key-value cache can be reused; leaving out one more at each turn would compute everything anew each time.
const STEP: usize = 4;

/// Put into the text of a special token, it makes ordinary text of it: ZERO WIDTH SPACE.
const BREAK: char = '\u{200b}';

/// A conversation as the model reads it.
#[derive(Debug)]
pub(super) struct Prompt {
    pub(super) ids: Vec<u32>,
    /// Messages that were left out, the oldest.
    pub(super) dropped: usize,
}

/// Template and tokenizer of one model.
pub(super) struct PromptMaker {
    environment: Environment<'static>,
    tokenizer: Arc<Tokenizer>,
    special: Vec<String>,
}

impl PromptMaker {
    pub(super) fn load(tokenizer_path: &Path, template_path: &Path) -> Result<Self, LoadError> {
        let tokenizer =
            Tokenizer::from_file(tokenizer_path).map_err(|source| LoadError::Tokenizer {
                path: tokenizer_path.into(),
                source,
            })?;
        let template = |source| LoadError::Template {
            path: template_path.into(),
            source,
        };
        let text = fs::read_to_string(template_path).map_err(|source| {
            template(
                minijinja::Error::new(ErrorKind::InvalidOperation, "cannot be read")
                    .with_source(source),
            )
        })?;
        let mut environment = Environment::new();
        // What the Hugging Face library sets when it renders chat templates (apply_chat_template): blocks leave no blank
        // lines, values have Python's methods, and a template may refuse.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<String, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        environment
            .add_template_owned(TEMPLATE, text)
            .map_err(template)?;
        let mut special: Vec<String> = tokenizer
            .get_added_tokens_decoder()
            .into_values()
            .filter(|token| token.special && token.content.chars().count() > 1)
            .map(|token| token.content)
            .collect();
        special.sort_unstable();
        Ok(Self {
            environment,
            tokenizer: Arc::new(tokenizer),
            special,
        })
    }

    pub(super) fn tokenizer(&self) -> Arc<Tokenizer> {
        Arc::clone(&self.tokenizer)
    }

    /// The prompt for an answer to `messages`, at most `limit` tokens long. Leading system messages and the last exchange always
    /// stay; older exchanges (a user's message and what followed it) are left out, the oldest first.
    pub(super) fn make(
        &self,
        messages: &[ChatMessage],
        tools: &[Value],
        limit: usize,
    ) -> Result<Prompt, InferenceError> {
        let messages: Vec<ChatMessage> = messages
            .iter()
            .map(|message| ChatMessage {
                role: message.role,
                content: self.harmless(&message.content),
            })
            .collect();
        let lengths = messages
            .iter()
            .map(|message| Ok(self.encode(&message.content)?.len()))
            .collect::<Result<Vec<usize>, InferenceError>>()?;
        let mut shortest = 0;
        for left_out in shortenings(&messages) {
            let kept = || (0..messages.len()).filter(|index| !left_out.contains(index));
            // The template only adds to the messages' own tokens, so their sum spares hopeless attempts.
            shortest = kept().map(|index| lengths[index]).sum();
            if shortest > limit {
                continue;
            }
            let kept: Vec<&ChatMessage> = kept().map(|index| &messages[index]).collect();
            let ids = self.encode(&self.render(&kept, tools)?)?;
            if ids.len() <= limit {
                return Ok(Prompt {
                    ids,
                    dropped: left_out.len(),
                });
            }
            shortest = ids.len();
        }
        Err(InferenceError::PromptTooLong {
            tokens: shortest,
            limit,
        })
    }

    fn render(&self, messages: &[&ChatMessage], tools: &[Value]) -> Result<String, InferenceError> {
        // Templates ask whether there are tools; an empty list is none.
        let tools = (!tools.is_empty()).then_some(tools);
        let messages: Vec<_> = messages
            .iter()
            .map(|message| context! { role => message.role.as_str(), content => message.content.as_str() })
            .collect();
        self.environment
            .get_template(TEMPLATE)
            .and_then(|template| {
                template.render(context! { messages, tools, add_generation_prompt => true })
            })
            .map_err(|source| InferenceError::Template { source })
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, InferenceError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|source| InferenceError::Tokenize { source })?;
        Ok(encoding.get_ids().to_vec())
    }

    fn harmless(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for special in &self.special {
            if text.contains(special.as_str()) {
                let mut broken = special.clone();
                let second = special
                    .char_indices()
                    .nth(1)
                    .map_or(special.len(), |(at, _)| at);
                broken.insert(second, BREAK);
                text = text.replace(special.as_str(), &broken);
            }
        }
        text
    }
}

/// The ranges of messages to try leaving out: nothing first, then more and more.
fn shortenings(messages: &[ChatMessage]) -> Vec<Range<usize>> {
    let head = messages
        .iter()
        .take_while(|message| message.role == Role::System)
        .count();
    // Where each exchange begins. What stands before the first user message belongs to the first exchange.
    let mut begins: Vec<usize> = (head..messages.len())
        .filter(|&index| index == head || messages[index].role == Role::User)
        .collect();
    if begins.len() > 1 && messages[head].role != Role::User {
        begins.remove(1);
    }
    let exchanges = begins.len();
    let step = if exchanges > LONG { STEP } else { 1 };
    let mut counts: Vec<usize> = (0..exchanges).step_by(step).collect();
    if let Some(last) = exchanges.checked_sub(1)
        && counts.last() != Some(&last)
    {
        counts.push(last);
    }
    if counts.is_empty() {
        counts.push(0);
    }
    counts
        .into_iter()
        .map(|count| head..begins.get(count).copied().unwrap_or(head))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(system: usize, exchanges: usize) -> Vec<ChatMessage> {
        let message = |role, content: String| ChatMessage { role, content };
        let head = (0..system).map(|_| message(Role::System, "be brief".into()));
        let body = (0..exchanges).flat_map(|index| {
            [
                message(Role::User, format!("question {index}")),
                message(Role::Assistant, format!("answer {index}")),
            ]
        });
        head.chain(body).collect()
    }

    #[test]
    fn the_system_message_and_the_last_exchange_always_stay() {
        for (system, exchanges) in [(0, 1), (1, 1), (1, 5), (2, 30)] {
            let messages = conversation(system, exchanges);
            let last = messages.len() - 2;
            let tried = shortenings(&messages);
            assert!(tried[0].is_empty(), "nothing is left out first");
            assert!(
                tried
                    .iter()
                    .all(|range| range.start == system && range.end <= last),
                "{tried:?}"
            );
            assert_eq!(
                tried.last().unwrap().end,
                last,
                "in the end only the last exchange is left"
            );
        }
    }

    #[test]
    fn long_conversations_lose_four_exchanges_at_a_time() {
        let ends: Vec<usize> = shortenings(&conversation(1, 11))
            .iter()
            .map(|range| range.end)
            .collect();
        assert_eq!(ends, [1, 9, 17, 21]);
        let ends: Vec<usize> = shortenings(&conversation(1, 3))
            .iter()
            .map(|range| range.end)
            .collect();
        assert_eq!(ends, [1, 3, 5]);
    }

    #[test]
    fn a_conversation_that_begins_with_the_assistant_keeps_that_with_the_first_exchange() {
        let mut messages = conversation(0, 3);
        messages.insert(
            0,
            ChatMessage {
                role: Role::Assistant,
                content: "hello".into(),
            },
        );
        let ends: Vec<usize> = shortenings(&messages)
            .iter()
            .map(|range| range.end)
            .collect();
        assert_eq!(ends, [0, 3, 5]);
    }
}
