//! Names that clients choose, whatever they are: one token each, no wildcard, never another's subject or header.

use causeway::bus::contract::{self, headers};
use causeway::message::Class;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_token_is_safe_and_means_one_name(text in any::<String>()) {
        let token = contract::token(&text);
        prop_assert!(!token.is_empty());
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=".contains(&byte);
        prop_assert!(token.bytes().all(safe), "{token}");
        let back = contract::untoken(&token);
        prop_assert_eq!(back.as_deref(), Some(text.as_str()));
    }

    #[test]
    fn different_names_never_meet(one in "[=2E. a]{0,4}", two in "[=2E. a]{0,4}") {
        prop_assert_eq!(one == two, contract::token(&one) == contract::token(&two));
    }

    #[test]
    fn reading_any_token_never_panics(token in any::<String>()) {
        let _ = contract::untoken(&token);
        let _ = contract::place(&token);
    }

    #[test]
    fn a_header_value_is_one_line_of_ascii(text in any::<String>()) {
        let value = headers::value(&text);
        prop_assert!(value.len() <= 512);
        prop_assert!(value.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    }

    #[test]
    fn three_names_make_six_tokens_and_no_other_three_make_the_same(one in three(), two in three()) {
        let subject = |names: &[String; 3]| contract::command(&names[0], &names[1], &names[2]);
        let (Ok(first), Ok(second)) = (subject(&one), subject(&two)) else {
            // too long is refused, whatever else it is
            return Ok(());
        };
        prop_assert_eq!(first == second, one == two, "{} {}", first, second);
        prop_assert!(first.len() <= contract::SUBJECT_BYTES);
        prop_assert_eq!(first.split('.').count(), 6, "{}", &first);
        prop_assert!(first.starts_with("gw.v1.cmd."));
        prop_assert!(!first.contains(['*', '>', '$', ' ', '\t', '\r', '\n', '\0']), "{}", &first);
        prop_assert_eq!(contract::command_parts(&first), Some(one.clone().into()));
    }

    #[test]
    fn an_event_and_a_state_of_any_name_stay_below_their_space_and_dialect(names in three()) {
        let [space, dialect, topic] = &names;
        for class in [Class::Event, Class::State] {
            let (Ok(subject), Ok(all)) = (
                contract::fact(class, space, dialect, topic),
                contract::facts(class, space, dialect),
            ) else {
                return Ok(());
            };
            let scope = all.strip_suffix('>').unwrap_or_default();
            prop_assert!(subject.starts_with(scope), "{} {}", &subject, scope);
            prop_assert!(!subject[scope.len()..].contains('.'), "{}", &subject);
            let place = contract::place(&subject);
            prop_assert_eq!(place.map(|place| (place.space, place.dialect, place.topic)), Some(names.clone().into()));
        }
    }
}

/// Names as they come, and names made to be mistaken for one another or for something else.
fn three() -> impl Strategy<Value = [String; 3]> {
    let hostile = prop::sample::select(vec![
        "", ".", "..", "a.b", "a..b", "*", ">", "a.>", " ", "\r\n", "\0", "=", "=2E", "==", "$SYS.x",
        "_INBOX.x", "é", "cancel",
    ]);
    let name = prop_oneof![
        "[=2E.*> a]{0,4}",
        any::<String>(),
        hostile.prop_map(str::to_owned),
    ];
    [name.clone(), name.clone(), name]
}
