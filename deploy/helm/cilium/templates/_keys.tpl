{{/* Generated from the declarations of the keys by `make docs` and compared by `make check`. */}}
{{- define "cilium.config" }}
data:
  agent-health-port: {{ include "cilium.text" .Values.healthPort | quote }}
  agent-not-ready-taint-key: {{ include "cilium.text" .Values.agentNotReadyTaintKey | quote }}
  auto-direct-node-routes: {{ include "cilium.text" .Values.autoDirectNodeRoutes | quote }}
  bpf-lb-acceleration: {{ include "cilium.text" .Values.loadBalancer.acceleration | quote }}
  bpf-lb-algorithm: {{ include "cilium.text" .Values.loadBalancer.algorithm | quote }}
  bpf-lb-algorithm-annotation: {{ include "cilium.text" .Values.bpf.lbAlgorithmAnnotation | quote }}
  bpf-lb-dsr-dispatch: {{ include "cilium.text" .Values.loadBalancer.dsrDispatch | quote }}
  bpf-lb-external-clusterip: {{ include "cilium.text" .Values.bpf.lbExternalClusterIP | quote }}
  bpf-lb-maglev-hash-seed: {{ default "JLfvgnHc2kaSUFaI" .Values.maglev.hashSeed | quote }}
  bpf-lb-maglev-table-size: {{ include "cilium.text" .Values.maglev.tableSize | quote }}
  bpf-lb-mode: {{ include "cilium.text" .Values.loadBalancer.mode | quote }}
  bpf-lb-mode-annotation: {{ include "cilium.text" .Values.bpf.lbModeAnnotation | quote }}
  bpf-lb-sock-hostns-only: {{ include "cilium.text" .Values.socketLB.hostNamespaceOnly | quote }}
  bpf-lb-sock-terminate-pod-connections: {{ include "cilium.text" .Values.socketLB.terminatePodConnections | quote }}
  bpf-lb-source-range-all-types: {{ include "cilium.text" .Values.bpf.lbSourceRangeAllTypes | quote }}
  bpf-map-dynamic-size-ratio: {{ include "cilium.text" .Values.bpf.mapDynamicSizeRatio | quote }}
  bpf-root: {{ include "cilium.text" .Values.bpf.root | quote }}
  cgroup-root: {{ include "cilium.text" .Values.cgroup.hostRoot | quote }}
  cilium-endpoint-gc-interval: {{ include "cilium.text" .Values.operator.endpointGCInterval | quote }}
  cluster-id: {{ include "cilium.text" .Values.cluster.id | quote }}
  cluster-name: {{ include "cilium.text" .Values.cluster.name | quote }}
  {{- if and (eq .Values.ipam.mode "cluster-pool") .Values.ipv4.enabled }}
  cluster-pool-ipv4-cidr: {{ join " " .Values.ipam.operator.clusterPoolIPv4PodCIDRList | quote }}
  cluster-pool-ipv4-mask-size: {{ include "cilium.text" .Values.ipam.operator.clusterPoolIPv4MaskSize | quote }}
  {{- end }}
  {{- if and (eq .Values.ipam.mode "cluster-pool") .Values.ipv6.enabled }}
  cluster-pool-ipv6-cidr: {{ join " " .Values.ipam.operator.clusterPoolIPv6PodCIDRList | quote }}
  cluster-pool-ipv6-mask-size: {{ include "cilium.text" .Values.ipam.operator.clusterPoolIPv6MaskSize | quote }}
  {{- end }}
  cni-chaining-mode: "none"
  cni-exclusive: {{ include "cilium.text" .Values.cni.exclusive | quote }}
  cni-log-file: {{ include "cilium.text" .Values.cni.logFile | quote }}
  cni-uninstall: {{ include "cilium.text" .Values.cni.uninstall | quote }}
  debug: {{ include "cilium.text" .Values.debug.enabled | quote }}
  default-lb-service-ipam: {{ include "cilium.text" .Values.defaultLBServiceIPAM | quote }}
  {{- with .Values.devices }}
  devices: {{ join " " . | quote }}
  {{- end }}
  direct-routing-skip-unreachable: {{ include "cilium.text" .Values.directRoutingSkipUnreachable | quote }}
  enable-auto-protect-node-port-range: {{ include "cilium.text" .Values.nodePort.autoProtectPortRange | quote }}
  enable-bpf-masquerade: "true"
  enable-endpoint-health-checking: {{ include "cilium.text" .Values.endpointHealthChecking.enabled | quote }}
  enable-envoy-config: {{ include "cilium.text" .Values.envoyConfig.enabled | quote }}
  enable-gateway-api: {{ include "cilium.text" .Values.gatewayAPI.enabled | quote }}
  enable-gateway-api-alpn: {{ include "cilium.text" .Values.gatewayAPI.enableAlpn | quote }}
  enable-gateway-api-app-protocol: {{ include "cilium.text" .Values.gatewayAPI.enableAppProtocol | quote }}
  enable-gateway-api-proxy-protocol: {{ include "cilium.text" .Values.gatewayAPI.enableProxyProtocol | quote }}
  enable-gateway-api-secrets-sync: {{ include "cilium.text" .Values.gatewayAPI.secretsNamespace.sync | quote }}
  enable-health-check-nodeport: {{ include "cilium.text" .Values.nodePort.enableHealthCheck | quote }}
  enable-health-checking: {{ include "cilium.text" .Values.healthChecking | quote }}
  enable-hubble: {{ include "cilium.text" .Values.hubble.enabled | quote }}
  {{- if and .Values.hubble.enabled (or .Values.hubble.metrics.enabled .Values.hubble.metrics.dynamic.enabled) }}
  enable-hubble-open-metrics: {{ include "cilium.text" .Values.hubble.metrics.enableOpenMetrics | quote }}
  {{- end }}
  enable-ingress-controller: {{ include "cilium.text" .Values.ingressController.enabled | quote }}
  enable-ingress-proxy-protocol: {{ include "cilium.text" .Values.ingressController.enableProxyProtocol | quote }}
  enable-ipv4: {{ include "cilium.text" .Values.ipv4.enabled | quote }}
  enable-ipv4-masquerade: {{ include "cilium.text" .Values.enableIPv4Masquerade | quote }}
  enable-ipv6: {{ include "cilium.text" .Values.ipv6.enabled | quote }}
  enable-ipv6-masquerade: {{ include "cilium.text" .Values.enableIPv6Masquerade | quote }}
  enable-l2-announcements: {{ include "cilium.text" .Values.l2announcements.enabled | quote }}
  enable-lb-ipam: {{ include "cilium.text" .Values.enableLBIPAM | quote }}
  enable-local-redirect-policy: {{ include "cilium.text" .Values.localRedirectPolicies.enabled | quote }}
  enable-node-ipam: {{ include "cilium.text" .Values.nodeIPAM.enabled | quote }}
  enable-policy: {{ include "cilium.text" .Values.policyEnforcementMode | quote }}
  enable-service-topology: {{ include "cilium.text" .Values.loadBalancer.serviceTopology | quote }}
  enforce-ingress-https: {{ include "cilium.text" .Values.ingressController.enforceHttps | quote }}
  external-ips-node-ports: {{ join " " .Values.externalIPs.nodePorts | quote }}
  gateway-api-hostnetwork-enabled: {{ include "cilium.text" .Values.gatewayAPI.hostNetwork.enabled | quote }}
  {{- if and .Values.gatewayAPI.enabled .Values.gatewayAPI.hostNetwork.nodes.matchLabels }}
  gateway-api-hostnetwork-nodelabelselector: {{ include "cilium.matchLabels" .Values.gatewayAPI.hostNetwork.nodes.matchLabels | quote }}
  {{- end }}
  gateway-api-secrets-namespace: {{ include "cilium.text" .Values.gatewayAPI.secretsNamespace.name | quote }}
  gateway-api-service-externaltrafficpolicy: {{ include "cilium.text" .Values.gatewayAPI.externalTrafficPolicy | quote }}
  gateway-api-xff-num-trusted-hops: {{ include "cilium.text" .Values.gatewayAPI.xffNumTrustedHops | quote }}
  health-check-icmp-failure-threshold: {{ include "cilium.text" .Values.healthCheckICMPFailureThreshold | quote }}
  http-stream-idle-timeout: {{ include "cilium.text" .Values.envoy.streamIdleTimeoutDurationSeconds | quote }}
  {{- if .Values.hubble.enabled }}
  hubble-disable-tls: {{ not .Values.hubble.tls.enabled | quote }}
  hubble-drop-events: {{ include "cilium.text" .Values.hubble.dropEventEmitter.enabled | quote }}
  {{- end }}
  {{- if and .Values.hubble.enabled .Values.hubble.dropEventEmitter.enabled }}
  hubble-drop-events-interval: {{ include "cilium.text" .Values.hubble.dropEventEmitter.interval | quote }}
  hubble-drop-events-reasons: {{ join " " .Values.hubble.dropEventEmitter.reasons | quote }}
  {{- end }}
  {{- if and .Values.hubble.enabled .Values.hubble.metrics.dynamic.enabled }}
  hubble-dynamic-metrics-config-path: "/dynamic-metrics-config/dynamic-metrics.yaml"
  {{- end }}
  {{- if .Values.hubble.enabled }}
  hubble-event-buffer-capacity: {{ include "cilium.text" .Values.hubble.eventBufferCapacity | quote }}
  hubble-event-buffer-max-size-mb: {{ include "cilium.text" .Values.hubble.eventBufferMaxSizeMb | quote }}
  {{- end }}
  {{- if and .Values.hubble.enabled .Values.hubble.export.static.enabled }}
  hubble-export-aggregation-interval: {{ include "cilium.text" .Values.hubble.export.static.aggregationInterval | quote }}
  hubble-export-allowlist: {{ join " " .Values.hubble.export.static.allowList | quote }}
  hubble-export-denylist: {{ join " " .Values.hubble.export.static.denyList | quote }}
  hubble-export-fieldaggregate: {{ join " " .Values.hubble.export.static.fieldAggregate | quote }}
  hubble-export-fieldmask: {{ join " " .Values.hubble.export.static.fieldMask | quote }}
  hubble-export-file-compress: {{ include "cilium.text" .Values.hubble.export.static.fileCompress | quote }}
  hubble-export-file-max-backups: {{ include "cilium.text" .Values.hubble.export.static.fileMaxBackups | quote }}
  hubble-export-file-max-size-mb: {{ include "cilium.text" .Values.hubble.export.static.fileMaxSizeMb | quote }}
  hubble-export-file-path: {{ include "cilium.text" .Values.hubble.export.static.filePath | quote }}
  {{- end }}
  {{- if and .Values.hubble.enabled (or .Values.hubble.export.otlp.endpoint .Values.hubble.export.otlp.logsEndpoint) }}
  hubble-export-otlp-allowlist: {{ join " " .Values.hubble.export.otlp.allowList | quote }}
  {{- end }}
  {{- if and .Values.hubble.enabled (or .Values.hubble.export.otlp.endpoint .Values.hubble.export.otlp.logsEndpoint) .Values.hubble.export.otlp.tls.caSecret }}
  hubble-export-otlp-ca-file: "/var/lib/cilium/tls/hubble-otlp/ca.crt"
  {{- end }}
  {{- if and .Values.hubble.enabled (or .Values.hubble.export.otlp.endpoint .Values.hubble.export.otlp.logsEndpoint) .Values.hubble.export.otlp.tls.clientSecret }}
  hubble-export-otlp-cert-file: "/var/lib/cilium/tls/hubble-otlp-client/tls.crt"
  {{- end }}
  {{- if and .Values.hubble.enabled (or .Values.hubble.export.otlp.endpoint .Values.hubble.export.otlp.logsEndpoint) }}
  hubble-export-otlp-denylist: {{ join " " .Values.hubble.export.otlp.denyList | quote }}
  {{- with .Values.hubble.export.otlp.endpoint }}
  hubble-export-otlp-endpoint: {{ include "cilium.text" . | quote }}
  {{- end }}
  {{- end }}
  {{- if and .Values.hubble.enabled (or .Values.hubble.export.otlp.endpoint .Values.hubble.export.otlp.logsEndpoint) .Values.hubble.export.otlp.headersSecret }}
  hubble-export-otlp-headers-path: "/var/lib/cilium/hubble-otlp-headers"
  {{- end }}
  {{- if and .Values.hubble.enabled (or .Values.hubble.export.otlp.endpoint .Values.hubble.export.otlp.logsEndpoint) .Values.hubble.export.otlp.tls.clientSecret }}
  hubble-export-otlp-key-file: "/var/lib/cilium/tls/hubble-otlp-client/tls.key"
  {{- end }}
  {{- if and .Values.hubble.enabled (or .Values.hubble.export.otlp.endpoint .Values.hubble.export.otlp.logsEndpoint) }}
  {{- with .Values.hubble.export.otlp.logsEndpoint }}
  hubble-export-otlp-logs-endpoint: {{ include "cilium.text" . | quote }}
  {{- end }}
  hubble-export-otlp-protocol: {{ include "cilium.text" .Values.hubble.export.otlp.protocol | quote }}
  {{- end }}
  {{- if and .Values.hubble.enabled .Values.hubble.export.dynamic.enabled }}
  hubble-flowlogs-config-path: "/flowlog-config/flowlogs.yaml"
  {{- end }}
  {{- if and .Values.hubble.enabled .Values.hubble.history.enabled }}
  hubble-history-max-age: {{ include "cilium.text" .Values.hubble.history.maxAge | quote }}
  hubble-history-max-size-mb: {{ include "cilium.text" .Values.hubble.history.maxSizeMb | quote }}
  hubble-history-path: "/var/lib/cilium/hubble"
  {{- end }}
  {{- if .Values.hubble.enabled }}
  {{- with .Values.hubble.listenAddress }}
  hubble-listen-address: {{ include "cilium.text" . | quote }}
  {{- end }}
  {{- end }}
  {{- if and .Values.hubble.enabled .Values.hubble.metrics.enabled }}
  hubble-metrics: {{ join " " .Values.hubble.metrics.enabled | quote }}
  {{- end }}
  {{- if and .Values.hubble.enabled (or .Values.hubble.metrics.enabled .Values.hubble.metrics.dynamic.enabled) }}
  hubble-metrics-server: {{ printf ":%s" (include "cilium.text" .Values.hubble.metrics.port) | quote }}
  hubble-metrics-server-enable-tls: {{ include "cilium.text" .Values.hubble.metrics.tls.enabled | quote }}
  {{- end }}
  {{- if and .Values.hubble.enabled .Values.hubble.metrics.tls.enabled (or .Values.hubble.metrics.enabled .Values.hubble.metrics.dynamic.enabled) }}
  hubble-metrics-server-tls-cert-file: "/var/lib/cilium/tls/hubble-metrics/server.crt"
  {{- end }}
  {{- if and .Values.hubble.enabled .Values.hubble.metrics.tls.enabled .Values.hubble.metrics.tls.server.mtls.enabled (or .Values.hubble.metrics.enabled .Values.hubble.metrics.dynamic.enabled) }}
  hubble-metrics-server-tls-client-ca-files: "/var/lib/cilium/tls/hubble-metrics/client-ca.crt"
  {{- end }}
  {{- if and .Values.hubble.enabled .Values.hubble.metrics.tls.enabled (or .Values.hubble.metrics.enabled .Values.hubble.metrics.dynamic.enabled) }}
  hubble-metrics-server-tls-key-file: "/var/lib/cilium/tls/hubble-metrics/server.key"
  {{- end }}
  {{- if .Values.hubble.enabled }}
  hubble-network-policy-correlation-enabled: {{ include "cilium.text" .Values.hubble.networkPolicyCorrelation.enabled | quote }}
  hubble-prefer-ipv6: {{ include "cilium.text" .Values.hubble.preferIpv6 | quote }}
  hubble-redact-enabled: {{ include "cilium.text" .Values.hubble.redact.enabled | quote }}
  {{- end }}
  {{- if and .Values.hubble.enabled .Values.hubble.redact.enabled }}
  hubble-redact-http-headers-allow: {{ join " " .Values.hubble.redact.http.headers.allow | quote }}
  hubble-redact-http-headers-deny: {{ join " " .Values.hubble.redact.http.headers.deny | quote }}
  hubble-redact-http-urlquery: {{ include "cilium.text" .Values.hubble.redact.http.urlQuery | quote }}
  {{- end }}
  {{- if .Values.hubble.enabled }}
  hubble-redact-http-userinfo: {{ include "cilium.text" .Values.hubble.redact.http.userInfo | quote }}
  hubble-socket-path: {{ include "cilium.text" .Values.hubble.socketPath | quote }}
  {{- end }}
  {{- if and .Values.hubble.enabled .Values.hubble.tls.enabled }}
  hubble-tls-cert-file: "/var/lib/cilium/tls/hubble/server.crt"
  hubble-tls-client-ca-files: "/var/lib/cilium/tls/hubble/client-ca.crt"
  hubble-tls-key-file: "/var/lib/cilium/tls/hubble/server.key"
  {{- end }}
  identity-allocation-mode: "crd"
  identity-gc-interval: {{ include "cilium.text" .Values.operator.identityGCInterval | quote }}
  identity-heartbeat-timeout: {{ include "cilium.text" .Values.operator.identityHeartbeatTimeout | quote }}
  ingress-default-lb-mode: {{ include "cilium.text" .Values.ingressController.loadbalancerMode | quote }}
  {{- with .Values.ingressController.defaultSecretName }}
  ingress-default-secret-name: {{ include "cilium.text" . | quote }}
  {{- end }}
  {{- with .Values.ingressController.defaultSecretNamespace }}
  ingress-default-secret-namespace: {{ include "cilium.text" . | quote }}
  {{- end }}
  ingress-hostnetwork-enabled: {{ include "cilium.text" .Values.ingressController.hostNetwork.enabled | quote }}
  {{- if and .Values.ingressController.enabled .Values.ingressController.hostNetwork.nodes.matchLabels }}
  ingress-hostnetwork-nodelabelselector: {{ include "cilium.matchLabels" .Values.ingressController.hostNetwork.nodes.matchLabels | quote }}
  {{- end }}
  ingress-hostnetwork-shared-listener-port: {{ include "cilium.text" .Values.ingressController.hostNetwork.sharedListenerPort | quote }}
  ingress-lb-annotation-prefixes: {{ join " " .Values.ingressController.ingressLBAnnotationPrefixes | quote }}
  ipam: {{ include "cilium.text" .Values.ipam.mode | quote }}
  {{- with .Values.ipv4NativeRoutingCIDR }}
  ipv4-native-routing-cidr: {{ include "cilium.text" . | quote }}
  {{- end }}
  {{- with .Values.ipv6NativeRoutingCIDR }}
  ipv6-native-routing-cidr: {{ include "cilium.text" . | quote }}
  {{- end }}
  {{- with .Values.k8sClientRateLimit.burst }}
  k8s-client-burst: {{ include "cilium.text" . | quote }}
  {{- end }}
  {{- with .Values.k8sClientRateLimit.qps }}
  k8s-client-qps: {{ include "cilium.text" . | quote }}
  {{- end }}
  {{- with .Values.k8s.serviceProxyName }}
  k8s-service-proxy-name: {{ include "cilium.text" . | quote }}
  {{- end }}
  kube-proxy-replacement: {{ include "cilium.text" .Values.kubeProxyReplacement | quote }}
  {{- with .Values.kubeProxyReplacementHealthzBindAddr }}
  kube-proxy-replacement-healthz-bind-address: {{ include "cilium.text" . | quote }}
  {{- end }}
  {{- with .Values.l2announcements.leaseDuration }}
  l2-announcements-lease-duration: {{ include "cilium.text" . | quote }}
  {{- end }}
  {{- with .Values.l2announcements.leaseRenewDeadline }}
  l2-announcements-renew-deadline: {{ include "cilium.text" . | quote }}
  {{- end }}
  {{- with .Values.l2announcements.leaseRetryPeriod }}
  l2-announcements-retry-period: {{ include "cilium.text" . | quote }}
  {{- end }}
  {{- with .Values.labels }}
  labels: {{ include "cilium.text" . | quote }}
  {{- end }}
  {{- if .Values.logOptions }}
  log-opt: {{ include "cilium.matchLabels" .Values.logOptions | quote }}
  {{- end }}
  {{- with .Values.localRedirectPolicies.addressMatcherCIDRs }}
  lrp-address-matcher-cidrs: {{ join " " . | quote }}
  {{- end }}
  max-connected-clusters: {{ include "cilium.text" .Values.clustermesh.maxConnectedClusters | quote }}
  monitor-aggregation: {{ include "cilium.text" .Values.bpf.monitorAggregation | quote }}
  monitor-aggregation-interval: {{ include "cilium.text" .Values.bpf.monitorInterval | quote }}
  {{- with .Values.MTU }}
  mtu: {{ include "cilium.text" . | quote }}
  {{- end }}
  node-port-bind-protection: {{ include "cilium.text" .Values.nodePort.bindProtection | quote }}
  node-port-range: {{ default "30000-32767" .Values.nodePort.range | quote }}
  {{- with .Values.nodePort.addresses }}
  nodeport-addresses: {{ join " " . | quote }}
  {{- end }}
  nodes-gc-interval: {{ include "cilium.text" .Values.operator.nodeGCInterval | quote }}
  operator-api-serve-addr: "127.0.0.1:9234"
  {{- if .Values.operator.prometheus.enabled }}
  operator-prometheus-serve-addr: ":{{ .Values.operator.prometheus.port }}"
  {{- end }}
  procfs: "/host/proc"
  {{- if .Values.prometheus.enabled }}
  prometheus-serve-addr: ":{{ .Values.prometheus.port }}"
  {{- end }}
  proxy-cluster-max-connections: {{ include "cilium.text" .Values.envoy.clusterMaxConnections | quote }}
  proxy-cluster-max-requests: {{ include "cilium.text" .Values.envoy.clusterMaxRequests | quote }}
  proxy-connect-timeout: {{ include "cilium.text" .Values.envoy.connectTimeoutSeconds | quote }}
  proxy-idle-timeout-seconds: {{ include "cilium.text" .Values.envoy.idleTimeoutDurationSeconds | quote }}
  proxy-max-active-downstream-connections: {{ include "cilium.text" .Values.envoy.maxGlobalDownstreamConnections | quote }}
  {{- with .Values.envoy.maxConcurrentRetries }}
  proxy-max-concurrent-retries: {{ include "cilium.text" . | quote }}
  {{- end }}
  proxy-max-requests-per-connection: {{ include "cilium.text" .Values.envoy.maxRequestsPerConnection | quote }}
  remove-cilium-node-taints: {{ include "cilium.text" .Values.operator.removeNodeTaints | quote }}
  routing-mode: {{ default "tunnel" .Values.routingMode | quote }}
  service-no-backend-response: {{ include "cilium.text" .Values.serviceNoBackendResponse | quote }}
  set-cilium-is-up-condition: {{ include "cilium.text" .Values.operator.setNodeNetworkStatus | quote }}
  skip-crd-creation: {{ include "cilium.text" .Values.operator.skipCRDCreation | quote }}
  trace-sock: {{ include "cilium.text" .Values.socketLB.tracing | quote }}
  {{- if ne .Values.routingMode "native" }}
  tunnel-direct: {{ include "cilium.text" .Values.tunnelDirect | quote }}
  {{- with .Values.tunnelPort }}
  tunnel-port: {{ include "cilium.text" . | quote }}
  {{- end }}
  tunnel-protocol: {{ default "vxlan" .Values.tunnelProtocol | quote }}
  {{- end }}
  {{- if include "cilium.unknownValues" . | trim }}
  unknown-helm-values: {{ include "cilium.unknownValues" . | trim | splitList "\n" | join " " | quote }}
  {{- end }}
  write-cni-conf-when-ready: "/host/etc/cni/net.d/05-cilium.conflist"
{{- end }}
