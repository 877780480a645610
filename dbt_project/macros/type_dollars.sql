{#- The same digits in every warehouse, so that sums agree to the last one. -#}
{%- macro type_dollars() -%} numeric(28, 6) {%- endmacro -%}
