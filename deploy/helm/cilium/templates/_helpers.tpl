{{/* The image reference. */}}
{{- define "cilium.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end }}

{{/* Where the API server is, as environment of a container. */}}
{{- define "cilium.apiServerEnv" -}}
{{- $host := .Values.k8sServiceHost }}
{{- $port := .Values.k8sServicePort }}
{{- if eq $host "auto" }}
{{- $server := include "cilium.clusterInfoServer" . | urlParse }}
{{- $host = $server.hostname }}
{{- $port = default "443" (regexFind ":[0-9]+$" $server.host | trimPrefix ":") }}
{{- end }}
{{- with $host }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ . | quote }}
{{- end }}
{{- with $port }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ . | quote }}
{{- end }}
{{- end }}

{{/* The address of the API server that kubeadm publishes for nodes that join. */}}
{{- define "cilium.clusterInfoServer" -}}
{{- $info := lookup "v1" "ConfigMap" "kube-public" "cluster-info" | default dict }}
{{- $kubeconfig := dig "data" "kubeconfig" "" $info | fromYaml }}
{{- $server := "" }}
{{- range $kubeconfig.clusters }}
{{- $server = default (dig "cluster" "server" "" .) $server }}
{{- end }}
{{- if not $server }}
{{- fail "k8sServiceHost=auto takes the address from the ConfigMap cluster-info in the namespace kube-public, and there is none with a server; `helm template` sees none at all: set k8sServiceHost and k8sServicePort" }}
{{- end }}
{{- $server }}
{{- end }}

{{/* The node's name and the namespace, as environment of a container. */}}
{{- define "cilium.placeEnv" -}}
- name: K8S_NODE_NAME
  valueFrom:
    fieldRef:
      apiVersion: v1
      fieldPath: spec.nodeName
- name: CILIUM_K8S_NAMESPACE
  valueFrom:
    fieldRef:
      apiVersion: v1
      fieldPath: metadata.namespace
{{- end }}

{{/* Paths of values that the chart does not know: those absent from files/known-values.txt. One per line. */}}
{{- define "cilium.unknownValues" -}}
{{- $known := dict }}
{{- range splitList "\n" (.Files.Get "files/known-values.txt") }}
{{- if . }}{{- $_ := set $known . true }}{{- end }}
{{- end }}
{{- include "cilium.unknownBelow" (dict "value" .Values "path" "" "known" $known) }}
{{- end }}

{{/* The recursion of the above: a map is looked into, unless the whole of it is known. */}}
{{- define "cilium.unknownBelow" -}}
{{- $path := .path }}
{{- $known := .known }}
{{- range $key, $value := .value }}
{{- $here := ternary $key (printf "%s.%s" $path $key) (eq $path "") }}
{{- if or (hasKey $known $here) (and (eq $path "") (eq $key "global")) }}
{{- else if kindIs "map" $value }}
{{- include "cilium.unknownBelow" (dict "value" $value "path" $here "known" $known) }}
{{- else }}
{{- printf "%s\n" $here }}
{{- end }}
{{- end }}
{{- end }}

{{/* Fails for what cannot work, with what to do instead. */}}
{{- define "cilium.validate" -}}
{{- if hasKey .Values "tunnel" }}
{{- fail "the value tunnel was removed: use routingMode=native or tunnelProtocol=vxlan" }}
{{- end }}
{{- if and (eq .Values.routingMode "native") .Values.tunnelProtocol }}
{{- fail "routingMode=native uses no tunnel: unset tunnelProtocol" }}
{{- end }}
{{- if and .Values.hubble.relay.enabled (not .Values.hubble.enabled) }}
{{- fail "hubble.relay.enabled needs hubble.enabled" }}
{{- end }}
{{- if and (include "cilium.metricsTls" .) (not .Values.hubble.tls.enabled) (not .Values.hubble.metrics.tls.server.existingSecret) }}
{{- fail "hubble.metrics.tls.enabled needs hubble.tls.enabled, which makes its certificate, or a Secret in hubble.metrics.tls.server.existingSecret" }}
{{- end }}
{{- if and .Values.hubble.ui.enabled (not .Values.hubble.relay.enabled) }}
{{- fail "hubble.ui.enabled needs hubble.relay.enabled: the UI asks the relay" }}
{{- end }}
{{- if and .Values.hubble.ui.enabled .Values.hubble.ui.ingress.enabled (not .Values.hubble.ui.ingress.hosts) }}
{{- fail "hubble.ui.ingress.enabled needs hubble.ui.ingress.hosts: the UI answers to names that it knows only" }}
{{- end }}
{{- if and .Values.hubble.relay.enabled (not .Values.hubble.listenAddress) }}
{{- fail "hubble.relay.enabled needs hubble.listenAddress: the relay asks agents over the network" }}
{{- end }}
{{- if and .Values.hubble.enabled .Values.hubble.tls.enabled (include "cilium.wantedCertificates" . | fromYamlArray) }}
{{- include "cilium.validateCertificates" . }}
{{- end }}
{{- end }}

{{/* The certificates that are not in a Secret of somebody else: the Secret's name, the certificate's, and its values with their path. */}}
{{- define "cilium.wantedCertificates" }}
{{- $wanted := list }}
{{- $server := .Values.hubble.tls.server }}
{{- if not $server.existingSecret }}
{{- $cluster := default "default" .Values.cluster.name | replace "." "-" }}
{{- $wanted = append $wanted (dict "name" "hubble-server-certs" "cn" (printf "*.%s.hubble-grpc.cilium.io" $cluster) "path" "hubble.tls.server" "values" $server) }}
{{- end }}
{{- $metrics := .Values.hubble.metrics.tls.server }}
{{- if and (include "cilium.metricsTls" .) (not $metrics.existingSecret) }}
{{- $cluster := default "default" .Values.cluster.name | replace "." "-" }}
{{- $wanted = append $wanted (dict "name" "hubble-metrics-server-certs" "cn" (printf "%s.hubble-metrics.cilium.io" $cluster) "path" "hubble.metrics.tls.server" "values" $metrics) }}
{{- end }}
{{- if .Values.hubble.relay.enabled }}
{{- range $side := list "client" "server" }}
{{- $values := index $.Values.hubble.relay.tls $side }}
{{- if and (or (eq $side "client") $values.enabled) (not $values.existingSecret) }}
{{- $wanted = append $wanted (dict "name" (printf "hubble-relay-%s-certs" $side) "cn" "*.hubble-relay.cilium.io" "path" (printf "hubble.relay.tls.%s" $side) "values" $values) }}
{{- end }}
{{- end }}
{{- end }}
{{- $ui := .Values.hubble.ui }}
{{- if and $ui.enabled .Values.hubble.relay.tls.server.enabled (not $ui.tls.client.existingSecret) }}
{{- $wanted = append $wanted (dict "name" "hubble-ui-client-certs" "cn" "*.hubble-ui.cilium.io" "path" "hubble.ui.tls.client" "values" $ui.tls.client) }}
{{- end }}
{{- toYaml $wanted }}
{{- end }}

{{/* Not empty if metrics of flows are served with TLS. */}}
{{- define "cilium.metricsTls" -}}
{{- $metrics := .Values.hubble.metrics }}
{{- if and .Values.hubble.enabled $metrics.tls.enabled (or $metrics.enabled $metrics.dynamic.enabled) }}true{{ end }}
{{- end }}

{{/* The names by which browsers may call the UI beside addresses and localhost: those of the Service and of the Ingress. */}}
{{- define "cilium.uiHosts" -}}
{{- $space := printf "hubble-ui.%s" .Release.Namespace }}
{{- $service := printf "%s.svc" $space }}
{{- $hosts := list "hubble-ui" $space $service (printf "%s.%s" $service .Values.hubble.peerService.clusterDomain) }}
{{- if .Values.hubble.ui.ingress.enabled }}
{{- $hosts = concat $hosts .Values.hubble.ui.ingress.hosts }}
{{- end }}
{{- join "," $hosts }}
{{- end }}

{{/* A Secret with a certificate, its key and its authority, in base64. */}}
{{- define "cilium.tlsSecret" }}
---
apiVersion: v1
kind: Secret
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    app.kubernetes.io/part-of: cilium
type: kubernetes.io/tls
data:
  ca.crt: {{ .ca }}
  tls.crt: {{ .crt }}
  tls.key: {{ .key }}
{{- end }}

{{/* The same for the values that certificates are made of. */}}
{{- define "cilium.validateCertificates" -}}
{{- $auto := .Values.hubble.tls.auto }}
{{- if and $auto.enabled (eq $auto.method "certmanager") (not (dig "name" "" (default dict $auto.certManagerIssuerRef))) }}
{{- fail "hubble.tls.auto.method=certmanager needs hubble.tls.auto.certManagerIssuerRef.name, and its kind (ClusterIssuer) unless it is an Issuer" }}
{{- end }}
{{- range include "cilium.wantedCertificates" . | fromYamlArray }}
{{- if and (not $auto.enabled) (or .values.cert .values.key) (not (and .values.cert .values.key $.Values.tls.ca.cert)) }}
{{- fail (printf "%s.cert, %s.key and tls.ca.cert are needed together: a certificate, its key, and the authority that the other side must have its own from" .path .path) }}
{{- end }}
{{- end }}
{{- if and .Values.tls.ca.key (not .Values.tls.ca.cert) }}
{{- fail "tls.ca.key is given without tls.ca.cert" }}
{{- end }}
{{- end }}

{{/* PEM in base64, as one line; fails with the name of the value it came from. */}}
{{- define "cilium.pem" -}}
{{- $text := regexReplaceAll "\\s" .value "" }}
{{- if not (contains "-----BEGIN " (b64dec $text)) }}
{{- fail (printf "%s is not PEM in base64" .from) }}
{{- end }}
{{- $text }}
{{- end }}

{{/* What an init container needs that mounts a file system on the node. */}}
{{- define "cilium.mountContainer" -}}
env:
  - { name: HOST_PROC, value: /hostproc }
volumeMounts:
  - { name: hostproc, mountPath: /hostproc }
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  capabilities:
    add: {{ toJson .Values.securityContext.capabilities.mountCgroup }}
    drop: [ALL]
{{- end }}

{{/* Labels as a selector. */}}
{{- define "cilium.matchLabels" -}}
{{- $pairs := list }}
{{- range $key, $value := . }}{{ $pairs = append $pairs (printf "%s=%s" $key $value) }}{{ end }}
{{- join "," $pairs }}
{{- end }}
