{{/* Not empty if certificates are made by this method. */}}
{{- define "cilium.certificatesBy" -}}
{{- $root := .root }}
{{- $auto := $root.Values.hubble.tls.auto }}
{{- if and $root.Values.hubble.enabled $root.Values.hubble.tls.enabled $auto.enabled (eq $auto.method .method) (include "cilium.wantedCertificates" $root | fromYamlArray) }}true{{ end }}
{{- end }}

{{/* The certificates that `cilium-certgen` is asked for. */}}
{{- define "cilium.certgenConfig" -}}
certs:
{{- $validity := printf "%dh" (mul 24 (int .Values.hubble.tls.auto.certValidityDuration)) }}
{{- range include "cilium.wantedCertificates" . | fromYamlArray }}
  - name: {{ .name }}
    namespace: {{ $.Release.Namespace }}
    commonName: {{ .cn | quote }}
    hosts: {{ concat (prepend (default list .values.extraDnsNames) .cn) (default list .values.extraIpAddresses) | toJson }}
    usage: [signing, key encipherment, server auth, client auth]
    validity: {{ $validity }}
{{- end }}
{{- end }}

{{/* What a Job is made of that runs it. */}}
{{- define "cilium.certgenJob" -}}
{{- $certgen := .Values.certgen }}
{{- with $certgen.ttlSecondsAfterFinished }}
ttlSecondsAfterFinished: {{ include "cilium.text" . }}
{{- end }}
backoffLimit: 12
template:
  metadata:
    labels:
      k8s-app: hubble-generate-certs
      app.kubernetes.io/part-of: cilium
      app.kubernetes.io/name: hubble-generate-certs
      {{- with $certgen.podLabels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  spec:
    {{- with .Values.imagePullSecrets }}
    imagePullSecrets:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    # It is done before there are pods with a network, if need be.
    hostNetwork: true
    dnsPolicy: ClusterFirstWithHostNet
    restartPolicy: OnFailure
    priorityClassName: {{ $certgen.priorityClassName | quote }}
    serviceAccountName: hubble-generate-certs
    automountServiceAccountToken: true
    securityContext:
      seccompProfile: { type: RuntimeDefault }
    containers:
      - name: certgen
        image: {{ include "cilium.image" . }}
        imagePullPolicy: {{ .Values.image.pullPolicy }}
        command: [cilium-certgen]
        args:
          - --ca-secret-namespace={{ .Release.Namespace }}
          - --ca-secret-name=cilium-ca
          {{- if not .Values.tls.ca.key }}
          - --ca-generate
          - --ca-validity-duration={{ mul 24 (int .Values.tls.ca.certValidityDuration) }}h
          {{- end }}
          {{- if .Values.debug.enabled }}
          - --debug
          {{- end }}
        env:
          {{- include "cilium.apiServerEnv" . | nindent 10 }}
          - name: CILIUM_CERTGEN_CONFIG
            value: |
              {{- include "cilium.certgenConfig" . | nindent 14 }}
        terminationMessagePolicy: FallbackToLogsOnError
        {{- with $certgen.resources }}
        resources:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          runAsNonRoot: true
          runAsUser: 65532
          runAsGroup: 65532
          capabilities:
            drop: [ALL]
    {{- with $certgen.affinity }}
    affinity:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $certgen.nodeSelector }}
    nodeSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $certgen.tolerations }}
    tolerations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}
