package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/cert-manager/cert-manager/pkg/apis/certmanager"
	controllerpkg "github.com/cert-manager/cert-manager/pkg/controller"
	"github.com/cert-manager/cert-manager/pkg/healthz"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	logsapi "k8s.io/component-base/logs/api/v1"

	// Each registers its control loop. Venafi's are not here: of their module no version that cert-manager can use
	// is served.
	_ "github.com/cert-manager/cert-manager/pkg/controller/acmechallenges"
	_ "github.com/cert-manager/cert-manager/pkg/controller/acmeorders"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificate-shim/ingresses"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/acme"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/vault"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/metrics"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/acme"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/vault"
)

const (
	leaseName     = "cert-manager-controller"
	healthTimeout = 20 * time.Second
	workers       = 5
)

// controller runs all control loops that cert-manager runs by default.
func controller(ctx context.Context, flags *pflag.FlagSet, arguments []string) error {
	settings, err := controllerSettings(flags, arguments)
	if err != nil {
		return err
	}
	ctx = logf.NewContext(ctx, logf.Log, "controller")
	factory, err := controllerpkg.NewContextFactory(ctx, settings.options)
	if err != nil {
		return err
	}
	common, err := factory.Build()
	if err != nil {
		return err
	}

	group, ctx := errgroup.WithContext(ctx)
	health := healthz.NewServer(healthTimeout)
	listener, err := net.Listen("tcp", ":9403")
	if err != nil {
		return err
	}
	group.Go(func() error { return health.Start(ctx, listener) })

	metrics, err := net.Listen("tcp", ":9402")
	if err != nil {
		return err
	}
	server := common.Metrics.NewServer(metrics)
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	group.Go(func() error {
		if err := server.Serve(metrics); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})

	group.Go(func() error {
		identity, err := os.Hostname()
		if err != nil {
			return err
		}
		lock, err := resourcelock.New(
			resourcelock.LeasesResourceLock, settings.leaseNamespace, leaseName,
			common.Client.CoreV1(), common.Client.CoordinationV1(),
			resourcelock.ResourceLockConfig{Identity: identity, EventRecorder: common.Recorder},
		)
		if err != nil {
			return err
		}
		failed := make(chan error, 1)
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: time.Minute, RenewDeadline: 40 * time.Second, RetryPeriod: 15 * time.Second,
			ReleaseOnCancel: true, WatchDog: health.LeaderHealthzAdaptor,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) { failed <- control(ctx, factory, common) },
				OnStoppedLeading: func() {},
			},
		})
		if ctx.Err() == nil {
			return errors.New("another process leads now")
		}
		select {
		case err := <-failed:
			return err
		case <-time.After(5 * time.Second):
			return nil
		}
	})
	return group.Wait()
}

func control(
	ctx context.Context, factory *controllerpkg.ContextFactory, common *controllerpkg.Context,
) error {
	group, ctx := errgroup.WithContext(ctx)
	for name, construct := range controllerpkg.Known() {
		made, err := construct(factory)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		group.Go(func() error { return made.Run(workers, ctx) })
	}
	common.SharedInformerFactory.Start(ctx.Done())
	common.KubeSharedInformerFactory.Start(ctx.Done())
	common.HTTP01ResourceMetadataInformersFactory.Start(ctx.Done())
	return group.Wait()
}

type settings struct {
	leaseNamespace string
	options        controllerpkg.ContextOptions
}

// controllerSettings returns cert-manager's defaults with the flags of its chart; any other flag is refused.
func controllerSettings(flags *pflag.FlagSet, arguments []string) (*settings, error) {
	made := &settings{options: controllerpkg.ContextOptions{
		KubernetesAPIQPS:   20,
		KubernetesAPIBurst: 50,
		IssuerOptions:      controllerpkg.IssuerOptions{ClusterIssuerAmbientCredentials: true},
		ACMEOptions: controllerpkg.ACMEOptions{
			HTTP01SolverResourceRequestCPU:    resource.MustParse("10m"),
			HTTP01SolverResourceRequestMemory: resource.MustParse("64Mi"),
			HTTP01SolverResourceLimitsCPU:     resource.MustParse("100m"),
			HTTP01SolverResourceLimitsMemory:  resource.MustParse("64Mi"),
			ACMEHTTP01SolverRunAsNonRoot:      true,
			DNS01CheckRetryPeriod:             10 * time.Second,
		},
		IngressShimOptions: controllerpkg.IngressShimOptions{
			DefaultIssuerKind:                 "Issuer",
			DefaultIssuerGroup:                certmanager.GroupName,
			DefaultAutoCertificateAnnotations: []string{"kubernetes.io/tls-acme"},
		},
		CertificateOptions: controllerpkg.CertificateOptions{
			CopiedAnnotationPrefixes: []string{
				"*", "-kubectl.kubernetes.io/", "-fluxcd.io/", "-argocd.argoproj.io/",
			},
			CertificateRequestMinimumBackoffDuration: time.Hour,
			CertificateRequestMaximumBackoffDuration: 32 * time.Hour,
		},
	}}
	options := &made.options
	logging := logsapi.NewLoggingConfiguration()
	logf.AddFlags(logging, flags)
	flags.StringVar(&options.ClusterResourceNamespace, "cluster-resource-namespace", "kube-system", "of ClusterIssuers")
	flags.StringVar(&made.leaseNamespace, "leader-election-namespace", "kube-system", "of the lease")
	flags.StringVar(&options.HTTP01SolverImage, "acme-http01-solver-image", "", "of ACME's pods")
	flags.IntVar(&options.MaxConcurrentChallenges, "max-concurrent-challenges", 60, "ACME's")
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	return made, logf.ValidateAndApply(logging)
}
