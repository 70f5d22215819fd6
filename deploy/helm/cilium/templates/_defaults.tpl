{{/* Puts defaults where values are missing or null: `helm upgrade --reuse-values` brings the values of the release before, which lacks
what is new since, and `--set section=null` takes a whole section away. Every template begins with it. */}}
{{- define "cilium.defaults" }}
{{- $none := list "nodeSelector" "tolerations" "operator.affinity" "operator.nodeSelector" "operator.tolerations" }}
{{- include "cilium.defaultsBelow" (dict "values" .Values "defaults" (.Files.Get "files/defaults.yaml" | fromYaml) "path" "" "none" $none) }}
{{- end }}

{{/* The recursion of the above. Null stays what it is for placement, where it says that there shall be none. */}}
{{- define "cilium.defaultsBelow" }}
{{- $values := .values }}
{{- $none := .none }}
{{- $path := .path }}
{{- range $key, $default := .defaults }}
{{- $own := index $values $key }}
{{- $here := printf "%s%s" $path $key }}
{{- if and (kindIs "map" $own) (kindIs "map" $default) }}
{{- include "cilium.defaultsBelow" (dict "values" $own "defaults" $default "path" (printf "%s." $here) "none" $none) }}
{{- else if and (kindIs "invalid" $own) (not (has $here $none)) }}
{{- $_ := set $values $key $default }}
{{- end }}
{{- end }}
{{- end }}
