// SPDX-License-Identifier: Apache-2.0
//! The declaration of keys as the fields of a structure.

/// Declares a struct of configuration keys, which implements [`Group`](crate::config::Group).
///
/// Each field is a key, described by the field's own documentation: `#[key("name", default = "…", …)]`, where the items
/// after the name are methods of [`Key`](crate::config::Key) with their argument. `#[key(PATH)]` refers to a key
/// declared elsewhere. A field without `#[key]` is a nested group. After the struct, `check` may name a method that
/// rejects invalid combinations.
///
/// ```
/// model::config::keys! {
///     /// How probes are answered.
///     #[derive(Clone, Debug, PartialEq, Eq)]
///     pub struct Config {
///         /// TCP port on which probes are answered.
///         #[key("health-port", default = "4240", value = "healthPort", within = 1..=65535)]
///         pub port: u16,
///     }
/// }
/// assert_eq!(Config::default().port, 4240);
/// ```
#[macro_export]
macro_rules! __config_keys {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[doc = $doc:literal])* $(#[key($($key:tt)+)])? pub $field:ident: $type:ty,)*
        }
        $(check $check:expr;)?
    ) => {
        $(#[$meta])*
        pub struct $name {
            $(
                $(#[doc = $doc])*
                $(#[doc = concat!("\n\nKey `", stringify!($($key)+), "`.")])?
                pub $field: $type,
            )*
        }

        impl $crate::config::Group for $name {
            fn keys() -> Vec<$crate::config::AnyKey> {
                [$($crate::__config_keys!(@keys $type, [$($doc)*], $($($key)+)?)),*].concat()
            }

            fn read(reader: &mut $crate::config::Reader<'_>) -> Self {
                let group = Self { $($field: $crate::__config_keys!(@read reader, $type, [$($doc)*], $($($key)+)?),)* };
                $($check(&group, reader);)?
                group
            }
        }

        impl Default for $name {
            fn default() -> Self {
                <Self as $crate::config::Group>::read(&mut $crate::config::Reader::new(&Default::default()))
            }
        }
    };
    (@key $type:ty, [$($doc:literal)+], $name:literal $(, $method:ident = $argument:expr)* $(,)?) => {
        $crate::config::Key::<$type>::new($name, concat!($($doc),+))$(.$method($argument))*
    };
    (@key $type:ty, [$($doc:literal)*], $key:path) => { $key };
    (@keys $type:ty, [$($doc:literal)*],) => { <$type as $crate::config::Group>::keys() };
    (@keys $type:ty, [$($doc:literal)*], $($key:tt)+) => {
        vec![$crate::__config_keys!(@key $type, [$($doc)*], $($key)+).any()]
    };
    (@read $reader:ident, $type:ty, [$($doc:literal)*],) => { <$type as $crate::config::Group>::read($reader) };
    (@read $reader:ident, $type:ty, [$($doc:literal)*], $($key:tt)+) => {
        $reader.get(&$crate::__config_keys!(@key $type, [$($doc)*], $($key)+))
    };
}
