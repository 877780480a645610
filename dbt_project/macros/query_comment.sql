{#- On BigQuery these become labels of the job: what a run and a model cost can be asked of the bill. -#}
{%- macro query_comment(node) -%}
    {{
        return(
            tojson(
                {
                    "run": env_var("SERVERLESS_RUN_ID", "by-hand"),
                    "asset": node.name if node else "none",
                }
            )
        )
    }}
{%- endmacro -%}
