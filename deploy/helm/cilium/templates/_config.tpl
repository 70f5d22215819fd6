{{/* Refuses what a daemon would refuse in the ConfigMap, in its words. Two things are left to the operator: pools that overlap, and what
only the cluster shows. */}}
{{- define "cilium.validateConfig" }}
{{- $config := dict }}
{{- range $key, $value := .config }}{{ $_ := set $config $key (trim $value) }}{{ end }}
{{- $lines := include "cilium.refusedValues" (dict "config" $config "files" .files) }}
{{- $lines = printf "%s%s" $lines (include "cilium.refusedTogether" $config) }}
{{- if trim $lines }}
{{- fail (printf "the configuration cannot be used:%s\ndocs/reference/config.md tells which value of the chart sets a key" $lines) }}
{{- end }}
{{- end }}

{{/* A value as a key has it. Numbers of a file of values come as floating point, of which a million would be written as 1e+06. */}}
{{- define "cilium.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ printf "%.0f" . }}{{ else }}{{ toString . }}{{ end }}
{{- end }}

{{/* One line of the refusal. */}}
{{- define "cilium.refusal" }}
{{ printf "  configuration key %s: %q is not %s" .key .value .want }}
{{- end }}

{{/* Values that are wrong whatever the others are, by files/config-values.yaml. They are taken out, so that what depends on them sees the
default and is not refused as well. */}}
{{- define "cilium.refusedValues" }}
{{- $config := .config }}
{{- range $kind := .files.Get "files/config-values.yaml" | fromYamlArray }}
{{- range $key := $kind.keys }}
{{- $text := default "" (index $config $key) }}
{{- $items := list $text }}
{{- if $kind.list }}{{ $items = regexSplit "[\\s,]+" $text -1 }}{{ end }}
{{- range $value := without $items "" }}
{{- $taken := regexMatch $kind.takes $value }}
{{- if and $taken (hasKey $kind "most") }}
{{- $number := int64 (regexReplaceAll "^[+]?0*([0-9])" $value "${1}") }}
{{- $taken = and (ge $number (int64 $kind.least)) (le $number (int64 $kind.most)) }}
{{- end }}
{{- if not $taken }}
{{- include "cilium.refusal" (dict "key" $key "value" $value "want" $kind.want) }}
{{- $_ := unset $config $key }}
{{- if $kind.list }}{{ $_ := set $config "refused" (append (default list $config.refused) $key) }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Values that are right alone, but not with the others, and those of `labels`, each word of which is an expression of its own. */}}
{{- define "cilium.refusedTogether" }}
{{- $labels := default "" .labels }}
{{- range $word := without (regexSplit "\\s+" $labels -1) "" }}
{{- $key := regexReplaceAll "^!?([^:]*:)?!?" $word "" }}
{{- if and $labels (or (not $key) (not (regexMatch (printf "(?:%s)|^" $key) ""))) }}
{{- include "cilium.refusal" (dict "key" "labels" "value" $labels "want" "a list of label patterns") }}
{{- $labels = "" }}
{{- end }}
{{- end }}
{{- $ipv4 := ne (index . "enable-ipv4") "false" }}
{{- $ipv6 := eq (index . "enable-ipv6") "true" }}
{{- $native := eq (index . "routing-mode") "native" }}
{{- if not (or $ipv4 $ipv6) }}
{{- include "cilium.refusal" (dict "key" "enable-ipv4" "value" "false" "want" "possible without enable-ipv6: \"true\"; one of the two must be on") }}
{{- end }}
{{- if and (gt (int (index . "cluster-id")) 255) (ne (index . "max-connected-clusters") "511") }}
{{- include "cilium.refusal" (dict "key" "cluster-id" "value" (index . "cluster-id") "want" "a number from 0 to 255, which max-connected-clusters allows") }}
{{- end }}
{{- if and (eq (default "" (index . "default-lb-service-ipam")) "nodeipam") (ne (default "" (index . "enable-node-ipam")) "true") }}
{{- include "cilium.refusal" (dict "key" "default-lb-service-ipam" "value" "nodeipam" "want" "possible without enable-node-ipam: \"true\"") }}
{{- end }}
{{- if and (not $native) (not (has (default "vxlan" (index . "tunnel-protocol")) (list "vxlan"))) }}
{{- include "cilium.refusal" (dict "key" "tunnel-protocol" "value" (index . "tunnel-protocol") "want" "supported: use vxlan") }}
{{- end }}
{{- if and (not $native) (eq (index . "auto-direct-node-routes") "true") }}
{{- include "cilium.refusal" (dict "key" "auto-direct-node-routes" "value" "true" "want" "possible in routing-mode: tunnel; it needs native") }}
{{- end }}
{{- if and (not $native) (ne (default "snat" (index . "bpf-lb-mode")) "snat") }}
{{- include "cilium.refusal" (dict "key" "bpf-lb-mode" "value" (index . "bpf-lb-mode") "want" "possible in routing-mode: tunnel; it needs native") }}
{{- end }}
{{- $config := . }}
{{- range $family, $on := dict "ipv4" $ipv4 "ipv6" $ipv6 }}
{{- $masquerade := ne (index $config (printf "enable-%s-masquerade" $family)) "false" }}
{{- $prefix := printf "%s-native-routing-cidr" $family }}
{{- if and $native $on $masquerade (not (index $config $prefix)) }}
{{- include "cilium.refusal" (dict "key" $prefix "value" "" "want" "enough in routing-mode: native with masquerading; name the prefix in which pods are routed") }}
{{- end }}
{{- if and $on (eq (default "cluster-pool" (index $config "ipam")) "cluster-pool") }}
{{- include "cilium.refusedPool" (dict "config" $config "key" (printf "cluster-pool-%s" $family) "most" (ternary 32 128 (eq $family "ipv4")) "size" (ternary "24" "120" (eq $family "ipv4"))) }}
{{- end }}
{{- end }}
{{- /* Durations are compared as what a clock shows so much after a date. */}}
{{- $times := dict }}
{{- range $name, $default := dict "none" "0" "least" "1s" "lease-duration" "15s" "renew-deadline" "5s" "retry-period" "2s" }}
{{- $then := toDate "2006-01-02" "2000-01-01" | dateModify (default $default (index $config (printf "l2-announcements-%s" $name))) }}
{{- $_ := set $times $name (dateInZone "20060102150405.000000000" $then "UTC") }}
{{- end }}
{{- $lease := index $times "lease-duration" }}
{{- $renew := index $times "renew-deadline" }}
{{- $retry := index $times "retry-period" }}
{{- if lt $lease $times.least }}
{{- include "cilium.refusal" (dict "key" "l2-announcements-lease-duration" "value" (default "" (index . "l2-announcements-lease-duration")) "want" "at least 1s") }}
{{- end }}
{{- if ge $renew $lease }}
{{- include "cilium.refusal" (dict "key" "l2-announcements-renew-deadline" "value" (default "" (index . "l2-announcements-renew-deadline")) "want" "shorter than l2-announcements-lease-duration") }}
{{- end }}
{{- if or (ge $retry $renew) (eq $retry $times.none) }}
{{- include "cilium.refusal" (dict "key" "l2-announcements-retry-period" "value" (default "" (index . "l2-announcements-retry-period")) "want" "shorter than l2-announcements-renew-deadline, and not 0") }}
{{- end }}
{{- if and (index . "hubble-listen-address") (ne (index . "hubble-disable-tls") "true") }}
{{- range $key := list "hubble-tls-cert-file" "hubble-tls-key-file" }}
{{- if not (index $config $key) }}
{{- include "cilium.refusal" (dict "key" $key "value" "" "want" "a file: it is needed unless hubble-disable-tls is \"true\"") }}
{{- end }}
{{- end }}
{{- end }}
{{- $collector := ternary "hubble-export-otlp-logs-endpoint" "hubble-export-otlp-endpoint" (not (empty (index . "hubble-export-otlp-logs-endpoint"))) }}
{{- if index . $collector }}
{{- if and (eq (default "grpc" (index . "hubble-export-otlp-protocol")) "grpc") (regexMatch "^https?://[^/]*/." (index . $collector)) }}
{{- include "cilium.refusal" (dict "key" $collector "value" (index . $collector) "want" "possible with hubble-export-otlp-protocol: grpc; a path needs http/protobuf") }}
{{- end }}
{{- $encrypted := hasPrefix "https://" (index . $collector) }}
{{- $shown := list "hubble-export-otlp-cert-file" "hubble-export-otlp-key-file" }}
{{- if or (index . (first $shown)) (index . (last $shown)) }}
{{- range $key := $shown }}
{{- if not (index $config $key) }}
{{- include "cilium.refusal" (dict "key" $key "value" "" "want" "a file: a certificate and its key are needed together") }}
{{- else if not $encrypted }}
{{- include "cilium.refusal" (dict "key" $key "value" (index $config $key) "want" (printf "empty, as %s is no https://" $collector)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (index . "hubble-metrics-server") (eq (index . "hubble-metrics-server-enable-tls") "true") }}
{{- range $key := list "hubble-metrics-server-tls-cert-file" "hubble-metrics-server-tls-key-file" }}
{{- if not (index $config $key) }}
{{- include "cilium.refusal" (dict "key" $key "value" "" "want" "a file: it is needed with hubble-metrics-server-enable-tls: \"true\"") }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The pool of one family: there must be one, and a node's share must fit into it. */}}
{{- define "cilium.refusedPool" }}
{{- $key := printf "%s-cidr" .key }}
{{- $text := default "" (index .config $key) }}
{{- $size := int (default .size (index .config (printf "%s-mask-size" .key))) }}
{{- $prefixes := without (regexSplit "[\\s,]+" $text -1) "" }}
{{- if not (or $prefixes (has $key (default list .config.refused))) }}
{{- include "cilium.refusal" (dict "key" $key "value" "" "want" "enough with ipam: cluster-pool: name prefixes for the nodes' pod CIDRs") }}
{{- end }}
{{- $misfit := "" }}
{{- range $prefix := $prefixes }}
{{- $length := int (regexFind "[0-9]+$" $prefix) }}
{{- if and (not $misfit) (or (lt $size $length) (gt $size (int $.most))) }}
{{- $misfit = printf "possible: mask size %d does not fit %s: it must be from %d to %d" $size $prefix $length (int $.most) }}
{{- end }}
{{- end }}
{{- if $misfit }}
{{- include "cilium.refusal" (dict "key" $key "value" $text "want" $misfit) }}
{{- end }}
{{- end }}
