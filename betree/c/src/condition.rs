//! Writes that are made only when the object is as expected.

use crate::boundary::{illegal, optional};
use engine::{Condition, Result, Version};

/// What must hold of the object that has a name.
#[expect(non_camel_case_types, reason = "the names are those of C")]
#[derive(Debug)]
#[repr(C)]
#[expect(dead_code, reason = "C programs use them; they come in as numbers")]
pub enum ConditionKind {
    /// Nothing.
    BETREE_CONDITION_ANY = 0,
    /// There is none; otherwise BETREE_ERROR_ALREADY_EXISTS.
    BETREE_CONDITION_ABSENT = 1,
    /// There is one; otherwise BETREE_ERROR_NOT_FOUND.
    BETREE_CONDITION_PRESENT = 2,
    /// There is one, and it is of this version; otherwise BETREE_ERROR_CONDITION_FAILED.
    BETREE_CONDITION_MATCHES = 3,
}

/// A condition; where a function takes one, NULL is BETREE_CONDITION_ANY.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ConditionOf {
    /// One of betree_condition_kind_t.
    kind: u32,
    /// For BETREE_CONDITION_MATCHES: `version` of betree_object_info_t.
    version: u64,
}

/// The number of a version.
pub fn number_of(version: Version) -> u64 {
    // Its text is the only form that the library gives away, and that is a number of 16 digits.
    u64::from_str_radix(&version.to_string(), 16).unwrap_or_default()
}

/// The condition at `condition`.
pub fn condition_at(condition: *const ConditionOf) -> Result<Condition> {
    let Some(condition) = optional("condition", condition)? else { return Ok(Condition::Any) };
    Ok(match condition.kind {
        0 => Condition::Any,
        1 => Condition::Absent,
        2 => Condition::Present,
        3 => {
            let version = format!("{:016x}", condition.version).parse();
            Condition::Matches(version.map_err(|_| illegal("condition", "the version is none"))?)
        }
        other => return Err(illegal("condition", format!("{other} is no kind of condition"))),
    })
}
