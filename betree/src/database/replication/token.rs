//! Where a stream goes on, as text that travels from the receiver to the sender.

use super::error::StreamError;
use super::format::{Position, decode_token, encode_token};
use crate::base::ids::Uuid;
use std::fmt;
use std::str::FromStr;

/// Says where a stream that was interrupted goes on: [`crate::Unfinished::token`] of the receiver, for
/// [`crate::SendOptions::resume`] of the sender. As text it is one word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeToken {
    pub(super) stream: Uuid,
    pub(super) position: Position,
}

impl fmt::Display for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in encode_token(self.stream, &self.position) {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for ResumeToken {
    type Err = StreamError;

    fn from_str(text: &str) -> Result<Self, StreamError> {
        let no_token = |reason: String| StreamError::NotResumed { reason };
        let digits: Option<Vec<u8>> =
            text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
        let digits = digits.filter(|digits| digits.len() % 2 == 0);
        let digits =
            digits.ok_or_else(|| no_token(String::from("a token is an even number of digits 0 to f")))?;
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        let (stream, position) =
            decode_token(&bytes).map_err(|error| no_token(format!("this is no whole token: {error}")))?;
        Ok(Self { stream, position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_text_and_back_and_typing_errors_are_found() {
        let position = Position { section: 1, key: Some(b"k\xff".to_vec()), chain: [9; 32], bytes: 300 };
        let token = ResumeToken { stream: Uuid([3; 16]), position };
        let text = token.to_string();
        assert_eq!(text.parse::<ResumeToken>().unwrap(), token);
        for at in 0..text.len() {
            let mut wrong = text.clone();
            let other = if &text[at..=at] == "0" { "1" } else { "0" };
            wrong.replace_range(at..=at, other);
            assert!(wrong.parse::<ResumeToken>().is_err(), "digit {at}");
            assert!(text[..at].parse::<ResumeToken>().is_err(), "the first {at}");
        }
        assert!("".parse::<ResumeToken>().is_err() && "zz".parse::<ResumeToken>().is_err());
    }
}
