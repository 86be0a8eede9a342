//! `leasehold key`.
//!
//! JSON of `lookup`: `{"target", "slice_key", "generation", "slice": SLICE}`, see
//! [`SliceReport`]; what is only known of listed slices is null there.

use clap::{Args, Subcommand};
use leasehold_proto::wire::admin::{KeyToLookUp, LookupKey};
use leasehold_proto::wire::listing::KeyInfo;
use leasehold_proto::wire::pb;
use leasehold_proto::{SliceKey, TargetName, limits};
use serde::Serialize;

use super::Global;
use super::client::Client;
use super::error::Failure;
use super::output::{Report, emit};
use super::slice::SliceReport;
use super::table::pairs;

const HELP: &str = "\
Exits with 1 if nobody serves the key.

Examples:
  leasehold key lookup cart customer-4711
  leasehold key lookup cart --hex 00000000000012ab
  leasehold key lookup cart --slice-key 0x8000000000000000";

/// Verbs of `leasehold key`.
#[derive(Subcommand)]
pub enum Verb {
    /// Who serves a key?
    #[command(after_help = HELP)]
    Lookup(Lookup),
}

/// Arguments of `lookup`.
#[derive(Args)]
pub struct Lookup {
    /// Name of the target
    target: TargetName,
    /// The key as the application has it
    #[arg(required_unless_present_any = ["hex", "slice_key"], conflicts_with_all = ["hex", "slice_key"])]
    key: Option<String>,
    /// The key's bytes in hexadecimal
    #[arg(long, value_name = "BYTES", conflicts_with = "slice_key")]
    hex: Option<String>,
    /// The key hashed already: 0x… or a decimal number
    #[arg(long, value_name = "KEY")]
    slice_key: Option<SliceKey>,
}

impl Verb {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let Verb::Lookup(lookup) = self;
        let mut client = Client::new(global).about(&lookup.target);
        let target = lookup.target.clone();
        let request = pb::LookupKeyRequest::from(&LookupKey {
            target: target.clone(),
            key: lookup.key()?,
        });
        let info: KeyInfo = client
            .read(request, async |grpc, r| grpc.lookup_key(r).await)
            .await?;
        let pods = info.pods.into_iter().collect();
        let (slice, assigned) = info.slice;
        let found = Found {
            target: target.to_string(),
            slice_key: info.slice_key.to_string(),
            generation: info.generation.to_string(),
            slice: SliceReport::assigned(slice, &assigned, &pods),
        };
        emit(global, &found)?;
        match found.slice.owner {
            Some(_) => Ok(()),
            None => Err(Failure::negative(format!(
                "nobody serves {}; `leasehold session list {target}` shows which pods there are",
                found.slice_key
            ))),
        }
    }
}

impl Lookup {
    fn key(self) -> Result<KeyToLookUp, Failure> {
        if let Some(key) = self.slice_key {
            return Ok(KeyToLookUp::Hashed(key));
        }
        let bytes = match self.hex {
            Some(hex) => unhex(&hex).ok_or_else(|| {
                Failure::usage("--hex takes pairs of hexadecimal digits, such as 00ff")
            })?,
            None => self.key.unwrap_or_default().into_bytes(),
        };
        if bytes.len() > limits::KEY_BYTES {
            return Err(Failure::usage(format!(
                "the key has {} bytes; at most {} are possible",
                bytes.len(),
                limits::KEY_BYTES
            )));
        }
        Ok(KeyToLookUp::Application(bytes))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text
        .trim_start_matches("0x")
        .chars()
        .map(|digit| digit.to_digit(16))
        .collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok())
        .collect()
}

/// Who serves a key.
#[derive(Serialize)]
pub struct Found {
    /// Of which target.
    pub target: String,
    /// The key's place.
    pub slice_key: String,
    /// The version of the assignment.
    pub generation: String,
    /// The slice that holds it.
    pub slice: SliceReport,
}

impl Report for Found {
    fn human(&self) -> String {
        let mut lines = vec![("slice key", self.slice_key.clone())];
        lines.extend(self.slice.lines());
        lines.push(("generation", self.generation.clone()));
        pairs(&lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_keys_are_read_or_refused() {
        assert_eq!(unhex("00fF"), Some(vec![0, 255]));
        assert_eq!(unhex("0x12"), Some(vec![0x12]));
        assert_eq!(unhex(""), Some(vec![]));
        assert!(unhex("0").is_none() && unhex("zz").is_none() && unhex("é0").is_none());
    }
}
