CREATE TABLE "unknown_objects" (
	"key" text NOT NULL,
	"token" text NOT NULL,
	"first_seen_at" timestamp (3) with time zone NOT NULL,
	"last_seen_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "unknown_objects_key_token_pk" PRIMARY KEY("key","token")
);
--> statement-breakpoint
ALTER TABLE "installation" ADD COLUMN "recovering_since" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "manifest_state" text DEFAULT 'live' NOT NULL;--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "verified_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "verifying_until" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "damage" text DEFAULT '' NOT NULL;--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "damaged_segment" integer;--> statement-breakpoint
CREATE INDEX "versions_verification" ON "versions" USING btree (coalesce("verified_at", "committed_at"),"id") WHERE "versions"."state" = 'live';--> statement-breakpoint
CREATE INDEX "versions_stale_manifests" ON "versions" USING btree ("id") WHERE "versions"."state" <> 'purged' and "versions"."manifest_state" <> "versions"."state";